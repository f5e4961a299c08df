from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from atrous.errors import InputError
from atrous.export.graph import write_bundle
from atrous.export.int8.observer import best_range, observe, steps
from atrous.export.int8.precision_plan import (
    FLOAT_SHARE,
    plan_precision,
    relative_noise,
    rounded_weight,
    with_rounded_forms,
)
from atrous.export.int8.quantizable import layers_of, rounded_tensors, weights_of
from atrous.export.int8.quantize import quantize
from atrous.infer.runtimes.open import OnnxRuntime

pytestmark = pytest.mark.slow  # for the export that they share


def make_images(count=3, size=(50, 70)):
    random = np.random.default_rng(0)
    coarse = random.integers(
        0, 256, (count, size[0] // 10 + 1, size[1] // 10 + 1, 3), dtype=np.uint8
    )
    return list(coarse.repeat(10, axis=1).repeat(10, axis=2)[:, : size[0], : size[1]])


@pytest.fixture(scope="module")
def quantized(float_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    steps = []
    model, plan = quantize(
        onnx.load(float_bundle), iter(make_images()), lambda *step: steps.append(step)
    )
    about = OnnxRuntime(float_bundle, threads=1).metadata
    write_bundle(model, replace(about, precision="int8"), path)
    return path, plan, steps


@pytest.fixture(scope="module")
def int8_bundle(quantized):
    return quantized[0]


def float_convolutions(path):
    """The names of the convolutions whose weights are not int8."""
    graph = onnx.load(path).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    return [node.name for node in convs if made_by.get(node.input[1]) != "DequantizeLinear"]


def test_int8_logits_are_near_the_float_ones_at_any_size(float_bundle, int8_bundle):
    for size in ((50, 70), (32, 41)):
        images = np.stack(make_images(2, size))
        expected = OnnxRuntime(float_bundle, threads=1)(images)
        logits = OnnxRuntime(int8_bundle, threads=1)(images)
        assert logits.shape == expected.shape
        error = ((logits - expected) ** 2).mean() / expected.var()
        assert error < 0.1


def test_the_file_is_a_third_of_the_size(float_bundle, int8_bundle):
    assert int8_bundle.stat().st_size < float_bundle.stat().st_size / 3


def test_the_chosen_layers_and_no_others_stay_in_float(float_bundle, quantized):
    path, plan, steps = quantized
    convs = float_convolutions(float_bundle)
    assert sorted(float_convolutions(path)) == sorted(plan.kept)
    assert plan.kept[0] == convs[-1], "the classifier"
    assert plan.num_layers == len(convs)
    assert steps[-1] == (len(convs), len(convs))
    line = f"kept in float: {len(plan.kept)} of {len(convs)} convolutions"
    assert str(plan).startswith(line)


def chain(*weights):
    """A float graph of convolutions one after the other, image uint8 (B, H, W, 3) to logits."""
    names = ["x", *(f"y{i}" for i in range(1, len(weights))), "logits"]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
    ]
    for i, weight in enumerate(weights):
        pads = [weight.shape[-1] // 2] * 4
        nodes.append(
            helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], f"conv{i}", pads=pads)
        )
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "K", "H", "W"])],
        [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)],
    )
    opset = [helper.make_opsetid("", 18)]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opset))


def test_the_layers_around_what_8_bits_cannot_hold_stay_in_float():
    random = np.random.default_rng(0)
    # Two channels, one a thousand times the other; what follows needs both alike.
    spread = np.array([[1000, 0, 0], [0, 1, 0]])[..., None, None]
    inverse = np.diag([0.001, 1])[..., None, None]
    wide = [random.normal(size=shape) for shape in ((32, 2, 3, 3), (32, 32, 5, 5), (2, 32, 1, 1))]
    model = chain(spread, inverse, *wide)
    layers = layers_of(model.graph)
    names = dict.fromkeys(name for layer in layers for name in (*layer.reads, layer.writes))
    images = np.stack(make_images(2, (16, 16)))
    plan = plan_precision(model, layers, observe(model, list(names), images), images)
    assert set(plan.kept) == {"conv0", "conv1", "conv4"}
    assert plan.work <= FLOAT_SHARE
    assert plan.noise > 0.99


def test_a_rounded_form_is_the_layer_in_8_bits():
    model = chain(np.random.default_rng(0).normal(size=(4, 3, 1, 1)))
    (layer,) = layers_of(model.graph)
    images = np.stack(make_images(1, (16, 16)))
    found = observe(model, ["x", "logits"], images)
    session = InferenceSession(
        with_rounded_forms(model, [layer], found).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    exact, rounded = (
        session.run(["logits"], {"image": images, "rounded": np.array(i)})[0] for i in (-1, 0)
    )
    (weight,) = weights_of(model.graph).values()
    x = images.transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_allclose(exact, np.einsum("kc,bchw->bkhw", weight[..., 0, 0], x), rtol=1e-4)
    values = np.einsum("kc,bchw->bkhw", rounded_weight(weight)[..., 0, 0], in_8_bits(x, found["x"]))
    step, _ = steps(*found["logits"].range)
    assert np.abs(rounded - in_8_bits(values, found["logits"])).max() < 1.01 * step
    assert np.unique(rounded).size <= 256


def in_8_bits(values, observer):
    step, zero = steps(*observer.range)
    return (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step


def test_the_same_images_give_the_same_bytes(float_bundle, int8_bundle, tmp_path):
    model, _ = quantize(onnx.load(float_bundle), make_images())
    write_bundle(model, OnnxRuntime(int8_bundle, threads=1).metadata, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == int8_bundle.read_bytes()


def test_the_float_graph_stays_as_it_is(float_bundle):
    model = onnx.load(float_bundle)
    quantize(model, make_images())
    assert model == onnx.load(float_bundle)


def test_nothing_is_rounded_if_all_convolutions_stay_in_float(float_bundle):
    model = onnx.shape_inference.infer_shapes(onnx.load(float_bundle))
    layers = layers_of(model.graph)
    names = {layer.node.name for layer in layers if layer.is_conv}
    assert rounded_tensors(layers, names) == set()
    everything = {name for layer in layers for name in (*layer.reads, layer.writes)}
    assert rounded_tensors(layers, ()) == everything


def test_what_all_classes_have_in_common_is_no_noise():
    exact = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    assert relative_noise(exact, exact + 7) < 1e-10
    assert relative_noise(exact, -exact) == pytest.approx(4, rel=1e-5)


def test_a_second_quantisation_and_no_images_are_refused(float_bundle, int8_bundle):
    with pytest.raises(InputError, match="int8 already"):
        quantize(onnx.load(int8_bundle), make_images())
    with pytest.raises(InputError, match="no image to calibrate"):
        quantize(onnx.load(float_bundle), [])


def test_the_range_keeps_all_of_an_even_spread():
    values = np.linspace(-2, 6, 1000, dtype=np.float32)
    assert best_range(values, -2, 6) == (-2, 6)


def test_the_range_gives_up_a_lone_outlier():
    values = np.append(np.random.default_rng(0).normal(size=20_000), 40).astype(np.float32)
    _, high = best_range(values, -4, 40)
    assert 4 < high < 40


def test_a_tensor_of_zeros_has_a_range():
    assert best_range(np.zeros(5, np.float32), 0.0, 0.0) == (0, 0)
