import json
import subprocess
import sys

import numpy as np
import pytest

from atrous.cli import main
from atrous.images import write_image, write_label
from atrous.infer.segmenter import load
from atrous.taxonomy import Taxonomy

DESCRIPTION = """\
name = "paint"
licence = "CC0-1.0"
[labels]
encoding = "index"
ignore = [255]
classes = [{classes}]
[splits.val]
images = "images/{{key}}.png"
labels = "masks/{{key}}.png"
"""


@pytest.fixture
def paint_data(tmp_path, paint, tiny_bundle):
    """A photo whose truth is what the bundle sees, but for ten grey pixels and a row ignored."""
    label = load(tiny_bundle).predict(paint).copy()
    label[0], label[1, :10] = 255, 3
    taxonomy = Taxonomy(name="paint", classes=tuple("rgbx"), colors=((0, 0, 0),) * 4)
    write_image(tmp_path / "images" / "a.png", paint)
    write_label(tmp_path / "masks" / "a.png", label, taxonomy)
    return describe(tmp_path, ["red", "green", "blue", "grey"])


def describe(folder, classes):
    text = DESCRIPTION.format(classes=", ".join(f'"{name}"' for name in classes))
    (folder / "dataset.toml").write_text(text)
    return folder


def test_the_table_names_the_protocol(paint_data, tiny_bundle, capsys):
    assert main(["evaluate", str(tiny_bundle), str(paint_data)]) == 0
    output = capsys.readouterr().out
    assert "1 image, 4 classes, protocol pooled: " in output
    assert "split val" in output
    assert max(map(len, output.splitlines())) <= 80


def test_json_holds_exact_counts_and_scores(paint_data, tiny_bundle, capsys):
    assert main(["evaluate", str(tiny_bundle), str(paint_data), "--split", "val", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    counts = np.array(document["confusion"])
    assert counts.sum() == 29 * 41
    assert counts[3, 0] == 10
    assert document["pacc"] == pytest.approx(1 - 10 / (29 * 41))
    assert (document["protocol"], document["images"], document["iou"]["grey"]) == ("pooled", 1, 0)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["red", "green", "blue"], "knows 4 classes"),
        (["red", "green", "blue", "car"], "it lacks car and has besides grey"),
        (["green", "red", "blue", "grey"], "in another order"),
    ],
)
def test_other_classes_are_refused(paint_data, tiny_bundle, capsys, classes, message):
    describe(paint_data, classes)
    assert main(["evaluate", str(tiny_bundle), str(paint_data)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--protocol", "coco"], "no metric protocol 'coco'; there is pooled"),
        (["--split", "test"], "no split 'test'; it has val"),
    ],
)
def test_an_unknown_protocol_or_split_is_refused(paint_data, tiny_bundle, capsys, extra, message):
    assert main(["evaluate", str(tiny_bundle), str(paint_data), *extra]) == 2
    assert message in capsys.readouterr().err


def test_a_bundle_is_scored_without_torch(paint_data, tiny_bundle):
    code = (
        "import sys; from atrous.cli import main; sys.modules['torch'] = None;"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "evaluate", str(tiny_bundle), str(paint_data)]
    subprocess.run(command, check=True, capture_output=True)
