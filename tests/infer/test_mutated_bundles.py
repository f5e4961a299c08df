"""Bundles that were damaged on the way: each labels photos as before, or is refused in one line."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from color_bundle import write_color_bundle
from hypothesis import event, given
from hypothesis import strategies as st
from mutation import a_quarter

from atrous.cli import main
from atrous.errors import InputError
from atrous.infer.segmenter import load

PHOTO = np.zeros((5, 7, 3), np.uint8)
PHOTO[:, 4:, 1] = 255  # green at the right, black at the left, which the last class is nearest to
OURS = "atrous."

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_ODD = st.sampled_from(
    [
        "",
        "{",
        "[" * 100_000,
        "NaN",
        "-1",
        "1e999",
        "9" * 5000,
        "1" + "0" * 300,
        "\ud800",
        '"\\ud800"',
    ]
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_bundle(tmp_path_factory.mktemp("mutated") / "paint.onnx")


def outcome(content: bytes, folder: Path, runtime: str = "onnxruntime") -> np.ndarray | str:
    """The labels of PHOTO by a bundle of this content, or the one line that refuses it."""
    path = folder / f"mutated-{os.getpid()}.onnx"
    path.write_bytes(content)
    try:
        labels = load(path, threads=1, runtime=runtime).predict(PHOTO)
    except InputError as error:
        assert path.stem in str(error) and "\n" not in str(error)
        return str(error)
    assert labels.shape == PHOTO.shape[:2] and labels.max() < 4
    return labels


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes exchanged, taken out or put in, or cut short."""
    metadata = content.index(OURS.encode())
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)) | st.integers(min(metadata, len(data)), len(data)))
        gone, new = draw(st.sampled_from([0, 1, 1, 1, 8])), draw(st.binary(max_size=8))
        data[place : place + gone] = new[:gone] if draw(st.booleans()) else new
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@a_quarter
@given(data=st.data())
def test_any_bytes_are_read_or_refused(bundle: Path, runtime: str, data: st.DataObject) -> None:
    result = outcome(data.draw(mutated(bundle.read_bytes())), bundle.parent, runtime)
    event("refused" if isinstance(result, str) else "read")


@a_quarter
@given(data=st.data())
def test_any_values_of_the_metadata_are_read_or_refused(bundle: Path, data: st.DataObject) -> None:
    """And what is read labels as before: no value changes what a class is."""
    model = onnx.load(bundle)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    key = data.draw(st.sampled_from(sorted(properties)))
    value = json.loads(properties[key])
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        value[data.draw(st.sampled_from(sorted(value)))] = data.draw(_JSON)
        text = json.dumps(value)
    else:
        text = data.draw(_JSON.map(json.dumps) | _ODD)
    content = with_property(bundle, key, text)
    result = outcome(content, bundle.parent)
    event("refused" if isinstance(result, str) else "read")
    if not isinstance(result, str):
        np.testing.assert_array_equal(result, load(bundle, threads=1).predict(PHOTO))


def with_property(bundle: Path, key: str, text: str | None) -> bytes:
    """The bundle with another value of a metadata property; None: without the property."""
    model = onnx.load(bundle)
    for index, entry in enumerate(model.metadata_props):
        if entry.key == OURS + key.removeprefix(OURS):
            if text is None:
                del model.metadata_props[index]
                break
            entry.value = "SURROGATE" if "\ud800" in text else text
    content = model.SerializeToString()
    return content.replace(b"SURROGATE", b"\xed\xa0\x80" * 3)


TAXONOMY = {
    "name": "paint",
    "classes": ["red", "green", "blue", "grey"],
    "colors": [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]],
    "things": [],
}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("stride", "4.0", "metadata: stride: expected int, got float"),
        ("stride", "true", "metadata: stride: expected int, got bool"),
        ("stride", "Infinity", "metadata: stride: expected int, got float"),
        ("stride", '"4"', "metadata: stride: expected int, got str"),
        ("stride", "8", "its graph gives logits (1, 4, 2, 2), where its metadata promise"),
        ("stride", "9" * 5000, "its metadata are damaged"),
        ("stride", None, "metadata: stride is missing"),
        ("format", "null", "metadata: format: expected int, got null"),
        ("recipe", '[["a", 1]]', "metadata: recipe: expected object, got array"),
        ("scores", "[" * 100_000, "its metadata are damaged"),
        ("model", "\ud800", "its metadata are damaged"),
        (
            "taxonomy",
            json.dumps(TAXONOMY | {"classes": "abcd"}),
            "classes: expected array, got str",
        ),
        ("taxonomy", json.dumps(TAXONOMY | {"classes": ["red", "green"]}), "4 colours for 2"),
        (
            "taxonomy",
            json.dumps(TAXONOMY | {"colors": [[0, 0, 300]] * 4}),
            "colors[0][2]: expected int <= 255",
        ),
        (
            "taxonomy",
            json.dumps(TAXONOMY | {"colors": [[0, 0]] * 4}),
            "metadata: taxonomy.colors[0]: expected array",
        ),
        ("taxonomy", json.dumps(TAXONOMY | {"things": [4]}), "the thing 4 is no class"),
        (
            "taxonomy",
            json.dumps(TAXONOMY | {"classes": ["a", "b"], "colors": [[0, 0, 0]] * 2}),
            "its graph gives logits (1, 4, 2, 2), where its metadata promise (1, 2, 2, 2)",
        ),
    ],
)
def test_damaged_metadata_are_named(bundle: Path, key: str, text: str | None, message: str) -> None:
    result = outcome(with_property(bundle, key, text), bundle.parent)
    assert isinstance(result, str) and message in result


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_text_that_is_no_utf8_prints_one_line(
    bundle: Path, tmp_path: Path, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever it stands: in a value, in a key, in a name of the graph."""
    photo = tmp_path / "a.ppm"
    photo.write_bytes(b"P6 7 5 255\n" + PHOTO.tobytes())
    codes = []
    for old in (b"nearest color", b"Apache-2.0", b"atrous.model", b"planes"):
        path = tmp_path / "paint.onnx"
        path.write_bytes(bundle.read_bytes().replace(old, b"\xff\xfe\xcf" + old[3:]))
        command = ["segment", photo, "--model", path, "--out", tmp_path, "--runtime", runtime]
        codes.append(main([*map(str, command)]))
        shown = capfd.readouterr()
        assert codes[-1] == 0 or (codes[-1], shown.err.count("\n"), shown.out) == (2, 1, "")
    assert codes.count(2) >= 2
