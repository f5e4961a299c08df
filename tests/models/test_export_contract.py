"""Every model and backbone family exports to one graph for all sizes, without shape knots."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from atrous.models.catalogue import build, normalization
from atrous.models.photo import PhotoNetwork

CASES = [  # of every model, on resnet18 and in 8 bits too: test_int8_contract.py
    ("fcn32s", "tf_efficientnet_lite0", 32, ()),
    ("fcn8s", "mobilenetv2_100", 32, ()),
    ("pspnet", "tf_efficientnet_lite0", 16, ()),
    ("unet", "tf_efficientnet_lite0", 16, ()),
    ("deeplabv3plus", "tf_efficientnet_lite0", 16, ()),
    ("deeplabv3plus", "mobilenetv3_large_100", 8, ()),
    ("deeplabv3", "regnety_008", 32, ()),
    ("deeplabv3", "convnext_tiny", 8, ()),
    ("deeplabv3_cascade", "mobilenetv3_large_100", 16, ()),
    ("fcn8s", "resnet18", 32, (1, 0.75)),
    ("deeplabv3plus", "tf_efficientnet_lite0", 16, (1, 0.75, 0.5)),
]


@pytest.mark.parametrize(("model", "backbone", "output_stride", "pyramid_scales"), CASES)
def test_one_graph_for_all_sizes(model, backbone, output_stride, pyramid_scales):
    network = build(
        model,
        num_classes=3,
        backbone=backbone,
        output_stride=output_stride,
        pyramid_scales=pyramid_scales,
    )
    for parameter in network.parameters():
        if not parameter.any():  # what starts at zero would prove nothing
            nn.init.normal_(parameter, std=0.1)
    photo = PhotoNetwork(network, *normalization(backbone)).eval()
    example = torch.randint(0, 256, (2, 70, 101, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        photo,
        (example,),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: "B", 1: "H", 2: "W"},),
        dynamo=True,
        verbose=False,
    )
    kinds = Counter(node.op_type for node in program.model_proto.graph.node)
    scales = 1 if network.fusion is None else 1 + len(network.fusion.others)
    assert kinds["Pad"] == scales  # the images': other paddings are constants of their convolutions
    assert not kinds.keys() & {"If", "Loop", "NonZero", "GatherND"}
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for shape in ((1, 70, 101, 3), (1, 32, 32, 3), (2, 64, 97, 3)):
        image = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            expected = photo(image).numpy()
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * expected.std())
