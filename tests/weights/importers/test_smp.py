"""segmentation_models.pytorch's networks and ours, with the same random weights, agree."""

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from networks import build
from saved_network import saved
from torch import nn

from atrous.errors import InputError
from atrous.models.catalogue import normalization
from atrous.models.layers import resize, resize_to
from atrous.weights.convert import import_weights

SIZES = ((64, 96), (128, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "encoder", "backbone"),
    [
        ("DeepLabV3", "resnet18", "resnet18"),
        ("DeepLabV3Plus", "resnet34", "resnet34"),
        ("DeepLabV3Plus", "tu-tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("DeepLabV3", "tu-mobilenetv3_large_100", "mobilenetv3_large_100"),
        ("PSPNet", "resnet50", "resnet50"),
        ("PSPNet", "tu-resnet34", "resnet34"),
        ("Unet", "resnet34", "resnet34"),
        ("Unet", "tu-convnext_tiny", "convnext_tiny"),
    ],
)
@torch.no_grad()
def test_logits_are_theirs(model, encoder, backbone, tmp_path):
    theirs = getattr(smp, model)(encoder, encoder_weights=None, classes=5)
    theirs.segmentation_head[1] = nn.Identity()  # their enlargement, to compare what it is given
    imported = import_weights(saved(theirs, tmp_path))
    assert imported.layout == "smp"
    assert imported.options["backbone"] == backbone
    assert (imported.normalization.mean, imported.normalization.std) == normalization(backbone)
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        expected = theirs(image)
        logits = imported.network(image).logits
        assert logits.shape == expected.shape
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_output_stride_is_a_choice(tmp_path):
    theirs = smp.DeepLabV3Plus("resnet18", encoder_weights=None, encoder_output_stride=8)
    path = saved(theirs, tmp_path)
    theirs.segmentation_head[1] = nn.Identity()
    image = torch.randn(1, 3, 64, 96)
    logits = import_weights(path, output_stride=8).network(image).logits
    torch.testing.assert_close(logits, theirs(image), rtol=1e-5, atol=1e-5)
    assert (import_weights(path).network(image).logits - theirs(image)).abs().max() > 1e-3


def test_a_namesake_of_the_backbone_is_a_choice(tmp_path):
    theirs = smp.Unet("tu-tf_mobilenetv3_large_100", encoder_weights=None, classes=2)
    path = saved(theirs, tmp_path)
    image = torch.randn(1, 3, 64, 96)
    ours = import_weights(path, backbone="tf_mobilenetv3_large_100").network
    with torch.no_grad():
        torch.testing.assert_close(ours(image).logits, theirs(image), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "encoder", "says"),
    [
        ("FPN", "resnet18", "its decoder is none of DeepLabV3, "),
        ("Unet", "mobilenet_v2", "its encoder is neither a ResNet nor"),
        ("Unet", "tu-resnet26", "its backbone is none of: resnet18, "),
    ],
)
def test_other_networks_are_refused(model, encoder, says, tmp_path):
    with pytest.raises(InputError, match=says):
        import_weights(saved(getattr(smp, model)(encoder, encoder_weights=None), tmp_path))


class Enlarged(nn.Module):
    def forward(self, x):
        by_factor = resize(x, 4, align_corners=True)
        return by_factor + resize_to(x[..., 1:], by_factor.shape[-2:], align_corners=True)


def test_their_enlargements_export_at_any_size():
    program = torch.onnx.export(
        Enlarged().eval(),
        (torch.randn(1, 2, 5, 7),),
        dynamic_shapes=({2: "h", 3: "w"},),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    x = torch.randn(1, 2, 9, 4)
    (seen,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(seen, Enlarged()(x), atol=1e-5)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"auxiliary": True}, "auxiliary level 16: resnet18 has features of 2 4 8 here"),
        ({"multi_grid": (1, 2)}, "it ends before the stage that multi_grid dilates"),
    ],
)
def test_a_backbone_that_ends_early_lacks_what_comes_after(option, says):
    with pytest.raises(InputError, match=says):
        build("pspnet", num_classes=2, backbone="resnet18", pooled_level=8, **option)
