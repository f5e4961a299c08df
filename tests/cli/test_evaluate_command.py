import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from panoptic_data import write_panoptic_data

from atrous.cli import main
from atrous.images.label_maps import write_label
from atrous.images.photos import read_image, write_image
from atrous.infer.runtime_selection import remember
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


def test_a_score_stays_as_it_is_after_bench(paint_data, tiny_bundle, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(paint_data / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(paint_data / "cache"))
    pytest.importorskip("openvino")
    assert remember(tiny_bundle, 1, "openvino:bf16")

    def scored(*options):
        command = ["evaluate", str(tiny_bundle), str(paint_data), "--threads", "1", "--json"]
        assert main([*command, *options]) == 0
        document = json.loads(capsys.readouterr().out)
        return [part["model"] for part in (document, document.get("against")) if part]

    plain, fastest = "paint (fp32, onnxruntime, 1 thread)", "paint (bf16, openvino, 1 thread)"
    assert scored() == [plain]
    assert scored("--against", str(tiny_bundle)) == [plain, plain]
    assert scored("--runtime", "auto") == [fastest]


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
        (["red", "green", "blue", "car"], "it lacks car and also has grey"),
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


def write_data(folder, classes, labels, split="val"):
    """A data set of masks (H, W), with photos that are black."""
    taxonomy = Taxonomy(name="x", classes=("x",), colors=((0, 0, 0),))
    for key, label in labels.items():
        write_image(folder / "images" / f"{key}.png", np.zeros((*label.shape, 3), np.uint8))
        write_label(folder / "masks" / f"{key}.png", label, taxonomy)
    return describe(folder, classes)


def predict_to(folder, labels):
    taxonomy = Taxonomy(name="x", classes=("x",), colors=((0, 0, 0),))
    for key, label in labels.items():
        write_label(folder / f"{key}.png", label, taxonomy)
    return folder


@pytest.fixture
def twelve(tmp_path):
    """A data set of twelve masks of three classes, and two folders of predictions, good and bad."""
    random = np.random.default_rng(0)
    labels = {f"{i:02}": random.integers(0, 3, (8, 9), dtype=np.uint8) for i in range(12)}
    data = write_data(tmp_path / "data", ["red", "green", "blue"], labels)
    folders = []
    for name, share in (("good", 0.1), ("bad", 0.5)):
        wrong = {
            key: np.where(random.random(label.shape) < share, 2 - label, label)
            for key, label in labels.items()
        }
        folders.append(predict_to(tmp_path / name, wrong))
    return data, *folders


def run(capsys, *arguments):
    """The JSON document of a call that must succeed."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN


def refused(capsys, *arguments):
    """The one line of a call that must be refused."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_predictions_in_files_need_no_model(twelve, capsys):
    data, good, _ = twelve
    document = run(capsys, data, "--predictions", good)
    assert document["images"] == 12 and document["missing"] == 0
    assert 0.7 < document["miou"] < 1
    low, high = document["interval"]
    assert low < document["miou"] < high
    assert main(["evaluate", str(data), "--predictions", str(good)]) == 0
    text = capsys.readouterr().out
    ends = f"{100 * low:.1f} to {100 * high:.1f}"
    assert f"95 % interval of mIoU: {ends}" in text
    (good / "03.png").unlink()
    line = refused(capsys, data, "--predictions", good)
    assert "no prediction of 03; looked for 03.labels.png, 03.labels.tif, 03.png, " in line


def test_parts_merge_to_the_very_same_document(twelve, tmp_path, capsys):
    data, good, bad = twelve
    whole = run(capsys, data, "--predictions", good, "--pairs", 3, "--against", bad)
    parts = [tmp_path / f"{i}.npz" for i in (1, 2, 3)]
    for i, part in enumerate(parts, start=1):
        one = run(capsys, data, "--predictions", good, "--shard", f"{i}/3", "--save", part)
        assert one["images"] == 4
    merged = run(capsys, data, "--merge", *parts[::-1], "--pairs", 3, "--against", bad)
    assert merged == whole
    run(capsys, data, "--predictions", bad, "--save", tmp_path / "bad.npz")
    against = run(capsys, data, "--merge", *parts, "--against", tmp_path / "bad.npz")["against"]
    assert against == whole["against"] | {"model": str(bad)}


def test_parts_that_do_not_belong_together_are_refused(twelve, tmp_path, capsys):
    data, good, _ = twelve
    parts = [tmp_path / f"{i}.npz" for i in (1, 2)]
    for i, part in enumerate(parts, start=1):
        run(capsys, data, "--predictions", good, "--shard", f"{i}/2", "--save", part)
    lacking = refused(capsys, data, "--merge", parts[0])
    assert "6 images in 1 file, in place of 12 images of split val; they lack 01; " in lacking
    twice = refused(capsys, data, "--merge", parts[0], parts[0])
    assert "1.npz: " in twice and "counted in both parts" in twice
    for path in (data / "images/11.png", data / "masks/11.png"):
        path.unlink()
    assert "they also hold 11" in refused(capsys, data, "--merge", *parts)
    describe(data, ["red", "green", "grey"])
    assert "counts of other classes" in refused(capsys, data, "--merge", *parts)
    parts[0].write_bytes(parts[0].read_bytes()[:200])
    assert "1.npz: " in refused(capsys, data, "--merge", *parts)


def test_two_models_are_compared_on_the_same_images(twelve, capsys):
    data, good, bad = twelve
    command = ["evaluate", str(data), "--predictions", str(good), "--against"]
    assert main([*command, str(bad)]) == 0
    better = capsys.readouterr().out.splitlines()[-2:]
    assert better[0].startswith(f"against {bad}: mIoU ")
    assert " better (95 %: +" in better[1]
    assert better[1].endswith(", p = 0.002): significant on 12 images") or ", p = 0.00" in better[1]
    assert main([*command, str(good)]) == 0
    same = capsys.readouterr().out.splitlines()[-1]
    assert same == "  0.0 better (95 %: +0.0 to +0.0, p = 1): not significant on 12 images"
    document = run(capsys, data, "--predictions", bad, "--against", good)["against"]
    assert document["difference"] < document["high"] < 0


def test_a_model_is_compared_with_files_and_says_how_sure_it_is(paint_data, tiny_bundle, capsys):
    label = load(tiny_bundle).predict(np.asarray(read_image(paint_data / "images/a.png")))
    predict_to(paint_data / "files", {"a": label})
    document = run(
        capsys, tiny_bundle, paint_data, "--against", paint_data / "files", "--calibration"
    )
    assert document["against"]["difference"] == 0 and document["against"]["p_value"] is None
    assert document["interval"] == [None, None]  # of one image
    assert 0 <= document["ece"] < 0.5 and sum(document["reliability"]["pixels"]) == 29 * 41
    assert main(["evaluate", str(tiny_bundle), str(paint_data), "--calibration"]) == 0
    text = capsys.readouterr().out
    assert "expected calibration error" in text and "interval" not in text


def test_boundaries_pairs_and_groups_are_scored_when_asked_for(tmp_path, capsys):
    label = np.repeat(np.arange(3, dtype=np.uint8), 20)[:, None].repeat(60, axis=1)
    data = write_data(tmp_path / "data", ["cat", "dog", "sky"], {"a": label})
    folder = predict_to(tmp_path / "files", {"a": np.where(label == 1, 0, label)})
    toml = data / "dataset.toml"
    names = ['{ name = "cat", group = "animal" }', '{ name = "dog", group = "animal" }']
    names.append('{ name = "sky", group = "stuff" }')
    command = [data, "--predictions", folder, "--tree", "--pairs", 9, "--boundary"]
    assert "no groups" in refused(capsys, *command)
    toml.write_text(toml.read_text().replace('"cat", "dog", "sky"', ", ".join(names)))
    document = run(capsys, *command)
    assert document["tree"][0]["iou"] == {"animal": 1, "stuff": 1}
    assert document["pairs"] == [{"true": "dog", "predicted": "cat", "pixels": 1200, "share": 1.0}]
    assert document["boundary_iou"]["dog"] == 0 and document["boundary_iou"]["sky"] == 1
    assert main(["evaluate", *map(str, command)]) == 0
    text = capsys.readouterr().out
    assert "2 groups of classes: mIoU 100.0" in text
    assert "100.0 %  dog taken for cat" in text
    assert "b-IoU" in text


def test_of_many_classes_the_best_and_the_worst_are_printed(tmp_path, capsys):
    label = np.arange(100, dtype=np.uint8).reshape(10, 10)
    classes = [f"class number {i} of many, with a name that is too long" for i in range(100)]
    data = write_data(tmp_path / "data", classes, {"a": label})
    folder = predict_to(tmp_path / "files", {"a": np.where(label < 97, label, 0)})
    assert main(["evaluate", str(data), "--predictions", str(folder), "--boundary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40 and max(map(len, lines[1:])) <= 80
    assert "  ... 80 more; --json has all of them" in lines
    assert len(run(capsys, data, "--predictions", folder)["iou"]) == 100


def test_a_partial_copy_says_so(twelve, capsys):
    data, good, _ = twelve
    (data / "list.txt").write_text("".join(f"{i:02}\n" for i in range(50)))
    toml = data / "dataset.toml"
    toml.write_text(toml.read_text() + 'list = "list.txt"\n')
    assert main(["evaluate", str(data), "--predictions", str(good)]) == 0
    assert "12 of 50 images of the list are here\n" in capsys.readouterr().out
    assert run(capsys, data, "--predictions", good)["missing"] == 38


def test_a_panoptic_result_is_scored_as_such(tmp_path, capsys):
    data = write_panoptic_data(tmp_path).folder
    document = run(capsys, data, "--predictions", data / "result.json")
    assert document["protocol"] == "panopticapi" and document["images"] == 2
    assert document["missing"] == 1
    assert 0 < document["pq"] < 1 and document["per_class"]["cat"]["isthing"]
    assert main(["evaluate", str(data), "--predictions", str(data / "result.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "2 of 3 images of the list are here"
    assert "2 images" in lines[2] and max(map(len, lines[1:])) <= 80
    for extra in (["--boundary"], ["--protocol", "mmseg"]):
        line = refused(capsys, data, "--predictions", data / "result.json", *extra)
        assert "PQ, SQ and RQ" in line
    line = refused(capsys, data, "--predictions", data / "result.json", "--ids", "dataset")
    assert "--ids applies to label files" in line


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--calibration"], "--calibration needs the probabilities of a MODEL"),
        (["--shard", "1/2"], "add --save"),
        (["--shard", "0/2", "--save", "a.npz"], "write I/N"),
        (["--shard", "1/13", "--save", "a.npz"], "N at most 12"),
        (["--save", "a.json"], "ends in .npz"),
        (["--save", "/proc/a.npz"], "--save /proc/a.npz: its folder cannot be written"),
        (["--save", "/proc/x/a.npz"], "--save /proc/x/a.npz: its folder cannot be written"),
        (["--save", __file__ + "/a.npz"], "its folder cannot be written"),
        (["--merge", "a.npz", "b.npz"], "DATA alone, with --predictions or --merge"),
        (["--pairs", "-3"], "pairs -3: say how many"),
        (["--against", "nowhere.npz"], "nowhere.npz: No such file or directory; give a file of"),
        (["--against", __file__], "give a model, a folder of predictions, or a .npz of --save"),
        (["--against", "nowhere"], "nowhere: no shipped model"),
        (["--tree"], "no groups"),
        (["--protocol", "coco"], "no metric protocol"),
        (["--ids", "other"], "ids"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(twelve, capsys, monkeypatch, extra, message):
    data, good, _ = twelve
    monkeypatch.setattr("atrous.evaluation.evaluate.count", None)
    assert message in refused(capsys, data, "--predictions", good, *extra)


def test_ids_tell_of_files_alone(paint_data, tiny_bundle, capsys):
    for extra in ([], ["--against", tiny_bundle]):
        line = refused(capsys, tiny_bundle, paint_data, "--ids", "dataset", *extra)
        assert "--ids applies to label files" in line
    folder = predict_to(paint_data / "files", {"a": np.zeros((30, 41), np.uint8)})
    run(capsys, tiny_bundle, paint_data, "--ids", "dataset", "--against", folder)


def test_a_disk_that_is_full_costs_no_scores(twelve, tmp_path, capsys, monkeypatch):
    def save(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("atrous.metrics.Confusion.save", save)
    data, good, _ = twelve
    command = ["evaluate", data, "--predictions", good, "--save", tmp_path / "new" / "a.npz"]
    assert main([*map(str, command)]) == 2
    captured = capsys.readouterr()
    assert "mIoU" in captured.out and "free some space" in captured.err


def test_a_score_that_is_undefined_has_no_difference(twelve, capsys):
    data, good, bad = twelve
    describe(data, ["red", "green", "blue", "absent"])
    command = [data, "--predictions", good, "--against", bad, "--protocol", "torchvision"]
    assert main(["evaluate", *map(str, command)]) == 0
    assert capsys.readouterr().out.endswith("is undefined, and so is their difference\n")


def test_a_part_is_not_compared_with_the_whole(twelve, tmp_path, capsys):
    data, good, bad = twelve
    run(capsys, data, "--predictions", bad, "--save", tmp_path / "bad.npz")
    part = ["--shard", "1/2", "--save", tmp_path / "1.npz", "--against", tmp_path / "bad.npz"]
    line = refused(capsys, data, "--predictions", good, *part)
    assert "12 images in 1 file, in place of 6 images of split val; they also hold 01" in line


@pytest.mark.parametrize("name", ["result.json", "result.JSON"])
def test_a_panoptic_result_needs_panoptic_truth(twelve, capsys, name):
    data, good, _ = twelve
    (good / name).write_text("{}")
    assert "holds no segments" in refused(capsys, data, "--predictions", good / name)


@pytest.mark.parametrize(
    "arguments", [["data"], ["model", "data", "--predictions", "x"], ["m", "d", "--merge", "x"]]
)
def test_model_and_data_are_told_apart(capsys, arguments):
    assert "give MODEL and DATA; or DATA alone" in refused(capsys, *arguments)
