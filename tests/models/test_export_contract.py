"""Every model and backbone family exports to one graph for all sizes, without shape knots."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from atrous.models.catalogue import build, normalization
from atrous.models.photo import PhotoNetwork

CASES = [
    ("deeplabv3plus", "tf_efficientnet_lite0", 16),
    ("deeplabv3plus", "mobilenetv3_large_100", 8),
    ("deeplabv3", "regnety_008", 32),
    ("deeplabv3", "convnext_tiny", 8),
    ("deeplabv3_cascade", "resnet18", 16),
]


@pytest.mark.parametrize(("model", "backbone", "output_stride"), CASES)
def test_one_graph_for_all_sizes(model, backbone, output_stride):
    network = build(model, num_classes=3, backbone=backbone, output_stride=output_stride)
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
    assert kinds["Pad"] == 1  # the image's: every other padding is a constant of its convolution
    assert not kinds.keys() & {"If", "Loop", "NonZero", "GatherND"}
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for shape in ((1, 70, 101, 3), (1, 32, 32, 3), (2, 64, 97, 3)):
        image = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            expected = photo(image).numpy()
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * expected.std())
