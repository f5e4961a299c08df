"""Every model exports to one graph for all sizes, and keeps its logits, in 8 bits as well."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import build
from torch import nn

from atrous.data.dataset import Dataset
from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.export.graph import to_onnx, write_bundle
from atrous.export.int8.precision_plan import relative_noise
from atrous.export.int8.quantize import quantize
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.open import OnnxRuntime
from atrous.models.catalogue import MODELS, normalization
from atrous.models.photo import PhotoNetwork
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.recipe import Recipe

CASES = [  # each model; and each family of backbones, by small members: layers are what takes time
    ("fcn", "mobilenetv3_small_050", {}),
    ("fcn32s", "resnet10t", {}),
    ("fcn16s", "resnet10t", {}),
    ("fcn8s", "resnet10t", {"pyramid_scales": (1, 0.5)}),
    ("pspnet", "convnext_atto", {}),
    ("unet", "resnet10t", {"upsampling": "transposed"}),
    ("deeplabv2", "resnet18", {"fusion_scales": (1, 0.75)}),
    ("deeplabv3", "regnety_002", {"output_stride": 32}),
    ("deeplabv3", "resnet18", {"repeated_blocks": 1, "pointwise_branch": False}),
    ("deeplabv3_cascade", "resnet18", {}),
    ("deeplabv3plus", "tf_efficientnet_lite0", {}),
    ("frrn_a", "none", {}),
]


def test_no_model_is_left_out():
    assert {model for model, _, _ in CASES} == set(MODELS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Images (4, 32, 48, 3) and labels (4, 32, 48)."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    split = Dataset.open(write_shapes(folder, num_train=4, size=(32, 48))).split("train")
    read = [split[i] for i in range(len(split))]
    return np.stack([s.image for s in read]), np.stack([s.label for s in read])


def trained(model, backbone, options, images, labels):
    """A network after five steps: what is untrained has no scores that could be told apart."""
    torch.manual_seed(0)
    network = build(model, num_classes=4, backbone=backbone, **options)
    photo = PhotoNetwork(network, *normalization(backbone)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    image, label = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(5):
        upsampled_loss(photo(image), label, photo.stride, Recipe()).backward()
        optimizer.step()
        optimizer.zero_grad()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what comes now
    with torch.no_grad():
        photo(image)
    return photo.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backbone", "options"), CASES)
def test_one_graph_for_all_sizes_is_near_torch(model, backbone, options, samples, tmp_path):
    images, labels = samples
    photo = trained(model, backbone, options, images, labels)
    graph = to_onnx(photo)
    kinds = Counter(node.op_type for node in graph.graph.node)
    fusion = photo.network.fusion
    scales = 1 if fusion is None else 1 + len(fusion.others)
    assert kinds["Pad"] == scales  # the images': other paddings are constants of their convolutions
    assert not kinds.keys() & {"If", "Loop", "NonZero", "GatherND"}

    about = BundleMetadata(
        taxonomy=TAXONOMY,
        stride=photo.stride,
        precision="fp32",
        model=model,
        licence="",
        version="",
    )
    write_bundle(graph, about, tmp_path / "fp32.onnx")
    quantized, _ = quantize(graph, iter(images))
    write_bundle(quantized, replace(about, precision="int8"), tmp_path / "int8.onnx")
    fp32, int8 = (OnnxRuntime(tmp_path / f"{n}.onnx", threads=1) for n in ("fp32", "int8"))
    for batch, height, width in ((1, 32, 48), (2, 29, 39), (2, 5, 33)):
        photos = images[:batch, :height, :width]
        with torch.no_grad():
            expected = photo(torch.from_numpy(photos)).numpy()
        np.testing.assert_allclose(fp32(photos), expected, rtol=1e-3, atol=1e-3 * expected.std())
        assert int8(photos).shape == expected.shape
        assert relative_noise(expected, int8(photos)) < 0.1  # an untrained FRRN has 0.15
