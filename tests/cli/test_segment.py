"""`atrous segment`, as a person calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

from atrous.cli import main
from atrous.images import photos as images
from atrous.images.label_maps import read_label
from atrous.images.photos import write_image


@pytest.fixture
def here(tmp_path: Path, paint: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photo.png in it."""
    write_image(tmp_path / "photo.png", paint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_photo(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "photo.png", "--model", str(tiny_bundle)]) == 0
    made = ["photo.json", "photo.labels.png", "photo.overlay.jpg", "photo.png"]
    assert files_in(here) == made
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("photo.png  41x30  paint (fp32, onnxruntime, ")
    assert lines[0].endswith(" ms")
    assert lines[1] == "  red     39.0 %  " + "█" * 17
    assert lines[4] == "wrote  photo.labels.png  photo.overlay.jpg  photo.json"
    assert lines[5].endswith("Others: atrous models")
    assert max(map(len, lines)) <= 80


def test_folder_keeps_its_shape_and_leaves_out_what_atrous_wrote(
    here: Path, tiny_bundle: Path, paint: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/photo.jpg", "a/photo.png", "b/photo.JPG", "b/.hidden/photo.png"):
        (here / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(here / "in" / name, paint)
    (here / "in" / "notes.txt").write_text("no photo")
    call = ["segment", "in", "--model", str(tiny_bundle), "--out", "out"]
    assert main(call) == 0
    made = [
        name
        for stem in ("a/photo.", "a/photo.png.", "b/photo.")
        for name in (f"{stem}json", f"{stem}labels.png", f"{stem}overlay.jpg")
    ]
    assert files_in(here / "out") == sorted(made)
    assert "3 of 3 photos segmented" in capsys.readouterr().out
    assert main(["segment", "out", "--model", str(tiny_bundle)]) == 2
    assert "out: no photos in this folder" in capsys.readouterr().err


def test_linked_folders_are_searched_and_circles_end(
    here: Path, tiny_bundle: Path, paint: np.ndarray
) -> None:
    (here / "far").mkdir()
    write_image(here / "far/1.png", paint)
    (here / "far/back").symlink_to(here / "in")
    (here / "in/own").mkdir(parents=True)
    (here / "in/link").symlink_to(here / "far")
    (here / "in/link 2").symlink_to(here / "far")
    (here / "in/own/2.png").symlink_to(here / "photo.png")
    (here / "in/gone.png").symlink_to(here / "nowhere.png")
    assert main(["segment", "in", "--model", str(tiny_bundle), "--out", "out"]) == 0
    labels = [path for path in files_in(here / "out") if path.endswith(".labels.png")]
    assert labels == ["link/1.labels.png", "own/2.labels.png"]


def test_photos_of_other_formats_are_read_or_named(
    here: Path,
    tiny_bundle: Path,
    paint: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "in").mkdir()
    for name in ("a.JFIF", "b.jp2", "c.tga"):
        kind = "JPEG" if name == "a.JFIF" else None
        Image.fromarray(paint).save(here / "in" / name, format=kind)
    blue = [Image.new("RGB", (41, 30), "blue")]
    Image.fromarray(paint).save(here / "in" / "d.png", save_all=True, append_images=blue)
    from_pillow(Image.fromarray(paint)).save(here / "in" / "e.heic", quality=100)
    (here / "in" / "f.CR2").write_bytes(b"II*\0 raw")
    call = ["segment", "in", "--model", str(tiny_bundle), "--out", "out"]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert "5 of 5 photos segmented" in printed.out
    assert printed.out.count("  red     39.0 %") == 3  # those that keep every value
    assert printed.err.splitlines() == [
        "passed over: in/f.CR2: of a format that is not read: convert to JPEG, PNG or TIFF",
        "in/d.png: several pictures; the first one is labelled",
    ]
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    assert main(call) == 0
    printed = capsys.readouterr()
    assert "4 of 4 photos segmented" in printed.out
    assert (
        'passed over: in/e.heic: HEIC, which an extra reads: pip install "atrous[heif]"'
        in printed.err.splitlines()
    )
    assert main(["segment", "in/e.heic", "--model", str(tiny_bundle)]) == 2
    assert 'install what reads it: pip install "atrous[heif]"' in capsys.readouterr().err


def test_a_bad_photo_is_reported_and_the_rest_go_on(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.png").write_text("hello")
    assert main(["segment", "bad.png", "photo.png", "--model", str(tiny_bundle)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: bad.png: not an image")
    assert printed.err.count("\n") == 1
    assert "1 of 2 photos segmented" in printed.out
    assert (here / "photo.labels.png").exists()
    assert not (here / "bad.labels.png").exists()


def test_json_is_one_document(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["segment", "photo.png", "missing.png", "--model", str(tiny_bundle), "--json"]
    assert main(call) == 2
    document = json.loads(capsys.readouterr().out)
    (image,) = document["images"]
    assert image["coverage"]["red"] == pytest.approx(16 / 41, abs=1e-6)
    assert read_label(image["files"][0]).shape == tuple(image["size"])
    assert document["errors"] == ["missing.png: no such file. Check the name and the folder"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.pgn"], "error: photo.pgn: no such file. Did you mean photo.png?"),
        (["https://example.org/photo.png"], "error: https://example.org/photo.png: an address"),
        (["photo.png", "--oot", "x"], "error: unknown option --oot. Did you mean --out?"),
        ([], "error: command segment: PATHS requires an argument."),
    ],
)
def test_mistakes_are_one_line(
    here: Path,
    tiny_bundle: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["segment", *arguments, "--model", str(tiny_bundle)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1


def test_options_stand_anywhere(here: Path, tiny_bundle: Path) -> None:
    for name in ("b.png", "c.png"):
        (here / name).write_bytes((here / "photo.png").read_bytes())
    model = ["--model", str(tiny_bundle)]
    assert main(["segment", "photo.png", *model, "b.png", "--flip", "c.png"]) == 0
    assert len(list(here.glob("*.labels.png"))) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_pipe_is_no_photo(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(here / "pipe.jpg")
    assert main(["segment", "pipe.jpg", "--model", str(tiny_bundle)]) == 2
    assert capsys.readouterr().err.startswith("error: pipe.jpg: no file, but a folder or a device")


def test_unknown_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "photo.png", "--model", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: nonsense: no shipped model")
    assert files_in(here) == ["photo.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "failed", "made"),
    [(100, "photo.labels.png", []), (2000, "photo.overlay.jpg", ["photo.labels.png"])],
)
def test_a_full_disk_leaves_nothing_half_written(
    here: Path, tiny_bundle: Path, limit: int, failed: str, made: list[str]
) -> None:
    """A limit on the size of files stands in for the disk: the write fails in its midst."""
    script = (
        "import resource, sys; from atrous.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "segment", "photo.png", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {failed}: ")
    assert done.stderr.count("\n") == 1
    assert files_in(here) == sorted([*made, "photo.png"])


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files(here: Path, tiny_bundle: Path, paint: np.ndarray) -> None:
    photos = [here / "in" / f"{index:03}.jpg" for index in range(1000)]
    write_image(photos[0], np.kron(paint, np.ones((4, 4, 1), np.uint8)))
    for photo in photos[1:]:
        photo.write_bytes(photos[0].read_bytes())
    command = [sys.executable, "-m", "atrous", "segment", "in", "--model", str(tiny_bundle)]
    process = subprocess.Popen(
        [*command, "--out", "out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    )
    while not (here / "out" / "010.json").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, b"")
    files = files_in(here / "out")
    stems = {name.split(".")[0] for name in files}
    assert 10 < len(stems) < 1000
    ends = ("json", "labels.png", "overlay.jpg")
    assert files == sorted(f"{stem}.{end}" for stem in stems for end in ends)
    for stem in stems:
        assert read_label(here / "out" / f"{stem}.labels.png").shape == (120, 164)


@pytest.mark.slow
def test_output_that_cannot_print_blocks(here: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "atrous", "segment", "photo.png", "--model", str(tiny_bundle)]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert b"red     39.0 %  #################" in done.stdout


def test_a_photo_of_12_bits_is_said_to_be_dark(
    here: Path, tiny_bundle: Path, paint: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    for bits in (12, 16):
        grey = paint[..., 0].astype(np.uint16) << (bits - 8)
        Image.fromarray(grey).save(here / f"{bits}.png")
    call = ["segment", "12.png", "16.png", "--model", str(tiny_bundle), "--out", "out"]
    assert main(call) == 0
    assert capsys.readouterr().err.splitlines() == [
        "12.png: 16 bits, but no value over 4080, so it was nearly black to the model; "
        "perhaps --range 0 4095"
    ]
    assert main([*call, "--range", "0", "4095"]) == 0
    assert capsys.readouterr().err == ""


STREET = Path(__file__).parents[2] / "docs/demo/street.jpg"
OTHER = "--model google/deeplabv3plus_mobilenetv2_ade20k"


def test_a_photo_that_is_no_street_is_named_with_another_model(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(here / "grey.png", np.full((120, 160, 3), 127, np.uint8))
    assert main(["segment", "grey.png", "--json"]) == 0
    printed = capsys.readouterr()
    said = f"grey.png looks unlike the streets that camvid knows; try {OTHER}"
    assert printed.err.splitlines() == [said]
    assert 0 < json.loads(printed.out)["images"][0]["certainty"] < 1
    assert main(["segment", "grey.png", str(STREET), "grey.png", "photo.png"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(("1 of 3", "2 of 3")) and line.endswith(OTHER)


def test_a_street_and_a_named_model_are_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(here / "grey.png", np.zeros((120, 160, 3), np.uint8))
    assert main(["segment", str(STREET)]) == 0
    assert main(["segment", "grey.png", "--model", "camvid", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "certainty" not in printed.out
