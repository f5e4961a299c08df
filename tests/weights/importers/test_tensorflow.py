"""TFLite files of DeepLab, written by the tests, against TensorFlow's interpreter where it is."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutation import a_quarter, mutated, read_or_refused
from tflite_files import Written

from atrous.data.shapes import TAXONOMY
from atrous.errors import InputError
from atrous.export.graph import to_onnx, write_bundle
from atrous.infer.bundle import BundleMetadata
from atrous.infer.segmenter import load
from atrous.models.backbones import Backbone
from atrous.models.create import create_model
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.layers import ASPP, upsample
from atrous.run import RunData, load_run
from atrous.train.network import start_network
from atrous.train.plan import network_of
from atrous.train.recipe import Recipe
from atrous.weights.convert import import_weights, write_run

SIZE = (65, 97)
PLAIN = ASPP.Config(channels=8, atrous_branches=False)
PYRAMID = ASPP.Config(channels=8, atrous_rates=(2, 4), separable=True)


def network(aspp=PLAIN, *, width=10, stride=16, plus=False, classes=5, **options):
    """A small network with uneven norms."""
    torch.manual_seed(0)
    backbone = Backbone.Config(name=f"mobilenetv2_{width:03}_tf", output_stride=stride)
    if plus:
        config = DeepLabV3Plus.Config(backbone=backbone, aspp=aspp, decoder_channels=8, **options)
    else:
        config = DeepLabV3.Config(backbone=backbone, aspp=aspp, **options)
    built = create_model(config, classes).eval()
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.4, 0.8)
                module.bias.normal_(std=0.3)
        built.head[1].weight.normal_()
    return built


def interpreted(path: Path, image: torch.Tensor) -> torch.Tensor:
    """What TensorFlow's interpreter makes of an image (1, 3, H, W): (1, K, H, W)."""
    if sys.platform != "linux":
        pytest.skip("ai-edge-litert is asked for on Linux only")
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path))
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], image.permute(0, 2, 3, 1).numpy())
    runner.invoke()
    return torch.from_numpy(runner.get_tensor(runner.get_output_details()[0]["index"]))


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 5e-5 * expected.abs().max()


FORMS = {
    "plain": {},
    "stride 8": {"stride": 8},
    "a third wide": {"width": 35},
    "pyramid": {"aspp": PYRAMID},
    "plain pyramid": {"aspp": replace(PYRAMID, separable=False), "stride": 8},
    "no pooling": {"aspp": replace(PLAIN, image_pooling=False)},
    "plus": {"plus": True, "aspp": replace(PLAIN, separable=True)},
    "plus, pyramid": {"plus": True, "aspp": PYRAMID, "stride": 8},
    "plus, plain": {"plus": True, "decoder_convs": 1},
}


@pytest.mark.parametrize("rearranged", [False, True])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_logits_are_the_interpreters(form, rearranged, tmp_path):
    theirs = network(**FORMS[form])
    path = Written(theirs, SIZE, rearranged=rearranged).save(tmp_path / "x.tflite")
    imported = import_weights(path)
    assert imported.layout == "tensorflow"
    backbone = theirs.backbone
    assert imported.options["backbone"] == backbone.name
    assert imported.options["output_stride"] == backbone.output_stride
    image = torch.rand(1, 3, *SIZE) * 2 - 1
    expected = interpreted(path, image).permute(0, 3, 1, 2)
    found = imported.network(image).logits
    stride = imported.network.stride
    assert_near(found, expected[..., ::stride, ::stride])
    assert_near(upsample(found, stride, SIZE, aligned=True), expected)


@pytest.mark.parametrize("weights", ["float16", "int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False])
@torch.no_grad()
def test_stored_weights_are_read_as_the_interpreter_does(weights, per_channel, tmp_path):
    written = Written(network(plus=True), SIZE, weights, per_channel=per_channel)
    path = written.save(tmp_path / "x.tflite")
    image = torch.rand(1, 3, *SIZE) * 2 - 1
    expected = interpreted(path, image).permute(0, 3, 1, 2)[..., ::4, ::4]
    found = import_weights(path).network(image).logits
    assert_near(found, expected)
    exact = network(plus=True)(image).logits
    assert (found - exact).abs().max() > 1e-4  # they were rounded


@torch.no_grad()
def test_any_size_is_padded_to_one_that_it_was_trained_at():
    ours = network(plus=True)
    image = torch.randn(1, 3, 50, 70)
    padded = torch.nn.functional.pad(image, (0, 81 - 70, 0, 65 - 50))
    logits = ours(image).logits
    assert logits.shape == (1, 5, 13, 18)
    torch.testing.assert_close(logits, ours(padded).logits[..., :13, :18])


def test_quantised_pixels_say_the_normalisation(tmp_path):
    written = Written(network(), SIZE, labels=True)
    written.tensors[written.first] |= {"kind": "uint8", "scale": [1 / 128], "zero": [128]}
    run = import_weights(written.save(tmp_path / "x.tflite")).normalization
    assert run.mean == (128 / 255,) * 3 and run.std == pytest.approx((128 / 255,) * 3)
    written.tensors[written.first] |= {"kind": "int8", "zero": [0]}
    assert import_weights(written.save(tmp_path / "x.tflite")).normalization == run


def _change(kind, position=0, **values):
    def change(written):
        found = [i for i, o in enumerate(written.operators) if o[0] == kind]
        written.operators[found[position]][3].update(values)

    return change


def _rename(kind, to, position=0):
    def change(written):
        at = [i for i, o in enumerate(written.operators) if o[0] == kind][position]
        _, *rest = written.operators[at]
        written.operators[at] = (to, *rest)

    return change


def _unused(written):
    written.constant(np.zeros(4, np.float32))


def _nan(written):
    index = written.operators[0][1][2]
    written.tensors[index]["content"] = np.full(3, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rename("ADD", "SUB"), r"operator \d+ SUB \(tensor \d+ t\d+\): no layer of DeepLab"),
        (_rename("ADD", "MUL"), "its input 1 is no constant"),
        (_change("CONV_2D", 1, FusedActivationFunction=1), "DeepLab has one 1x1 conv"),
        (_change("CONV_2D", 2, StrideW=2, StrideH=2), "a stride of 2|stride 2"),
        (_change("DEPTHWISE_CONV_2D", 1, StrideW=1, StrideH=1), "where MobileNetV2 has"),
        (_change("DEPTHWISE_CONV_2D", 9, DilationWFactor=3, DilationHFactor=3), "dilation 3"),
        (_change("DEPTHWISE_CONV_2D", 3, Padding=1), "no convolution that keeps the size"),
        (_change("RESIZE_BILINEAR", -1, AlignCorners=0), "without align_corners"),
        (_change("RESIZE_BILINEAR", -1, HalfPixelCenters=1), "without align_corners"),
        (_change("CONCATENATION", 0, Axis=1), "joins other things than channels"),
        (_change("AVERAGE_POOL_2D", 0, FilterHeight=3), "less than the whole image"),
        (_unused, r"tensor \d+ t\d+: no operator uses it"),
        (_nan, "NaN or infinity"),
    ],
)
def test_what_has_no_place_is_named(change, reason, tmp_path):
    written = Written(network(), SIZE)
    change(written)
    with pytest.raises(InputError, match=reason) as caught:
        import_weights(written.save(tmp_path / "x.tflite"))
    assert str(caught.value).startswith(f"{tmp_path / 'x.tflite'}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_even_sizes_and_other_networks_are_refused(tmp_path):
    path = Written(network(), (64, 96)).save(tmp_path / "x.tflite")
    with pytest.raises(InputError, match="a stride of 2 on 96x64 cells"):
        import_weights(path)
    written = Written(network(), SIZE)
    written.last = written.operators[-4][2]
    with pytest.raises(InputError, match="its output is not that of the logits"):
        import_weights(written.save(path))


def test_options_and_other_files_are_refused(tmp_path):
    path = Written(network(), SIZE).save(tmp_path / "x.tflite")
    with pytest.raises(InputError, match=r"--layout smp: .* is a TFLite file"):
        import_weights(path, "smp")
    with pytest.raises(InputError, match="says output stride and backbone"):
        import_weights(path, output_stride=8)
    renamed = path.rename(tmp_path / "x.pth")
    assert import_weights(renamed).layout == "tensorflow"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="no TFLite file, or damaged"):
        import_weights(path)
    with pytest.raises(InputError, match="no such file"):
        import_weights(tmp_path / "none.tflite", "tensorflow")


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    """Small files of each form, for mutations."""
    small = [
        Written(network(width=5), (33, 33), rearranged=True),
        Written(network(width=5, plus=True), (33, 33), "uint8"),
        Written(network(width=5), (33, 33), "int8", labels=True),
    ]
    return [written.content(written.first, written.last) for written in small]


@given(data=st.data())
@a_quarter
def test_a_damaged_file_is_refused_in_one_line(data, contents, tmp_path):
    content = data.draw(st.sampled_from(contents).flatmap(mutated))
    path = tmp_path / "x.tflite"
    path.write_bytes(content)
    with read_or_refused():
        import_weights(path, "tensorflow")


def test_numbers_of_a_file_may_be_anything(contents, tmp_path):
    """Words of four bytes, where a file has its offsets, lengths, shapes and options."""
    random, path = np.random.default_rng(0), tmp_path / "x.tflite"
    for _ in range(100):
        content = contents[random.integers(len(contents))]
        words = np.frombuffer(content[: len(content) // 4 * 4], np.uint32).copy()
        for at in random.integers(0, len(words), random.integers(1, 4)):
            words[at] = random.choice([0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1])
        path.write_bytes(words.tobytes())
        with read_or_refused():
            import_weights(path, "tensorflow")


def test_a_training_starts_from_what_was_imported(tmp_path):
    path = Written(network(plus=True, classes=4), SIZE).save(tmp_path / "x.tflite")
    imported = import_weights(path)
    write_run(imported, TAXONOMY, tmp_path / "run", RunData(name="shapes"))
    init = str(tmp_path / "run")
    recipe = Recipe(init=init, pretrained=False, dropout=0.0, **_without_dropout(network_of(init)))
    started, _ = start_network(recipe, 4, (0, 1, 2))
    image = torch.randn(2, 3, *SIZE)
    logits = started.train()(image).logits
    torch.testing.assert_close(logits, imported.network(image).logits)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in started.parameters())
    fresh = network(plus=True).train()
    assert all(m.training for m in fresh.modules())


def _without_dropout(fields):
    return {name: value for name, value in fields.items() if name != "dropout"}


FILES = os.environ.get("ATROUS_TFLITE_FILES")
"""A folder with published files, such as deeplabv3_257_mv_gpu.tflite."""


@pytest.mark.skipif(not FILES, reason="ATROUS_TFLITE_FILES names no folder of published files")
@torch.no_grad()
def test_a_published_file_has_the_interpreters_logits():
    path = Path(FILES or "") / "deeplabv3_257_mv_gpu.tflite"
    imported = import_weights(path)
    assert imported.options["backbone"] == "mobilenetv2_050_tf"
    image = torch.rand(1, 3, 257, 257) * 2 - 1
    expected = interpreted(path, image).permute(0, 3, 1, 2)[..., ::8, ::8]
    assert (imported.network(image).logits - expected).abs().max() < 1e-4


@pytest.mark.slow
def test_a_bundle_labels_as_the_run_does(tmp_path):
    path = Written(network(plus=True, classes=4), SIZE).save(tmp_path / "x.tflite")
    imported = import_weights(path)
    write_run(imported, TAXONOMY, tmp_path / "run", RunData(name="shapes", licence="CC0-1.0"))
    run = load_run(tmp_path / "run")
    metadata = BundleMetadata.from_run(run.run, stride=4, aligned=run.network.aligned)
    write_bundle(to_onnx(run.network), metadata, tmp_path / "x.onnx")
    bundle = load(tmp_path / "x.onnx", runtime="onnxruntime")
    assert bundle.metadata.aligned
    assert bundle.metadata.to_properties()["atrous.format"] == "2"
    ours = load(tmp_path / "run", runtime="torch")
    for size in (SIZE, (50, 70), (64, 64), (3, 130)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        logits = bundle.runtime(image[None])
        np.testing.assert_allclose(logits, ours.runtime(image[None]), atol=1e-3)
        assert (bundle.predict(image) == ours.predict(image)).mean() > 0.999
        full = upsample(torch.from_numpy(logits), 4, size, aligned=True)[0]
        assert (bundle.predict(image) == full.argmax(0).numpy()).mean() > 0.999
