from collections import Counter

import numpy as np
import onnx
import pytest

from atrous.export.quantize import best_range, quantize
from atrous.files import InputError
from atrous.infer.runtimes import OnnxRuntime


def make_images(count=3, size=(50, 70)):
    random = np.random.default_rng(0)
    coarse = random.integers(
        0, 256, (count, size[0] // 10 + 1, size[1] // 10 + 1, 3), dtype=np.uint8
    )
    return list(coarse.repeat(10, axis=1).repeat(10, axis=2)[:, : size[0], : size[1]])


@pytest.fixture(scope="module")
def int8_bundle(float_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    quantize(float_bundle, path, iter(make_images()))
    return path


def test_int8_logits_are_near_the_float_ones_at_any_size(float_bundle, int8_bundle):
    for size in ((50, 70), (32, 41)):
        images = np.stack(make_images(2, size))
        expected = OnnxRuntime(float_bundle, threads=1)(images)
        logits = OnnxRuntime(int8_bundle, threads=1)(images)
        assert logits.shape == expected.shape
        error = ((logits - expected) ** 2).mean() / expected.var()
        assert error < 0.1


def test_the_file_says_int8_and_is_a_third_of_the_size(float_bundle, int8_bundle):
    assert OnnxRuntime(int8_bundle, threads=1).metadata.precision == "int8"
    assert int8_bundle.stat().st_size < float_bundle.stat().st_size / 3


def test_the_ends_stay_in_float(int8_bundle):
    graph = onnx.load(int8_bundle).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [made_by.get(node.input[1]) == "DequantizeLinear" for node in convs]
    assert quantized == [False] * 3 + [True] * (len(convs) - 4) + [False]
    kinds = Counter(node.op_type for node in graph.node)
    # The stem keeps its activations; the limits of all others are those of their ranges.
    assert (kinds["Clip"], kinds["Relu"]) == (2, 0)


def test_a_second_quantisation_and_no_images_are_refused(float_bundle, int8_bundle, tmp_path):
    with pytest.raises(InputError, match="int8 already"):
        quantize(int8_bundle, tmp_path / "again.onnx", make_images())
    with pytest.raises(InputError, match="no image to calibrate"):
        quantize(float_bundle, tmp_path / "none.onnx", [])
    assert not list(tmp_path.iterdir())


def test_the_range_keeps_all_of_an_even_spread():
    values = np.linspace(-2, 6, 1000, dtype=np.float32)
    assert best_range(values, -2, 6) == (-2, 6)


def test_the_range_gives_up_a_lone_outlier():
    values = np.append(np.random.default_rng(0).normal(size=20_000), 40).astype(np.float32)
    _, high = best_range(values, -4, 40)
    assert 4 < high < 40


def test_a_tensor_of_zeros_has_a_range():
    assert best_range(np.zeros(5, np.float32), 0.0, 0.0) == (0, 0)
