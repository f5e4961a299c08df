"""Shards: packed and read again, also by others, and a stranger's tars in one line."""

import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.data.shards.pack import pack
from atrous.data.shards.read import Shards, member_stem, open_shards
from atrous.errors import InputError

SIZE = (24, 32)


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


IMAGE = png(np.full((4, 6, 3), 90, np.uint8))
LABEL = png(np.array([[0, 1, 2, 255, 0, 0]] * 4, np.uint8))


def write_tar(
    path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT, mtime: float = 0
) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), mtime
            tar.addfile(header, io.BytesIO(content))
    return path


def read(folder: Path, pattern: str = "*.tar") -> Shards:
    return open_shards(folder, pattern, "train", 3)


def packed(folder: Path, out: Path, shard_bytes: int = 10**8) -> Dataset:
    dataset = Dataset.open(folder)
    pack(dataset, list(dataset.splits), out, shard_bytes)
    return Dataset.open(out)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 9, 3, size=SIZE)


@pytest.fixture(scope="module")
def shards(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the shapes, two samples in each."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    packed(shapes, out, 2 * 3500 + 4096)
    return out


def test_shards_hold_what_the_files_hold(shapes: Path, shards: Path) -> None:
    files, tars = Dataset.open(shapes), Dataset.open(shards)
    assert (tars.name, tars.licence, tars.source) == (files.name, files.licence, files.source)
    assert tars.taxonomy == files.taxonomy
    assert list(tars.splits) == ["train", "val"]
    for split in tars.splits:
        of_files = {sample.key: sample for sample in files.split(split)}
        of_tars = tars.split(split)
        assert isinstance(of_tars, Shards) and of_tars.missing == 0
        assert set(of_tars.keys) == of_files.keys() and len(of_tars) == len(of_files)
        for index, sample in enumerate(of_tars):
            assert sample.key == of_tars.keys[index]
            np.testing.assert_array_equal(sample.image, of_files[sample.key].image)
            np.testing.assert_array_equal(sample.label, of_files[sample.key].label)
            np.testing.assert_array_equal(of_tars.label(index), sample.label)
            assert sample.label.dtype == np.uint8
    keys = tars.split("train").keys
    assert keys != tuple(sorted(keys))  # mixed, even where they are read in sequence


def test_plain_tar_finds_the_very_files(shapes: Path, shards: Path, tmp_path: Path) -> None:
    for path in sorted(shards.glob("train-*.tar")):
        subprocess.run(["tar", "xf", str(path)], cwd=tmp_path, check=True)
    images = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".label.png")}
    assert images == {path.name for path in (shapes / "train").iterdir()}
    for name in images:
        assert (tmp_path / name).read_bytes() == (shapes / "train" / name).read_bytes()
    label = Image.open(tmp_path / "0000.label.png")
    assert label.mode == "P" and label.getpalette()[3:6] == [220, 60, 60]  # of a disc
    assert 255 in np.asarray(label)


def test_the_same_files_make_the_same_bytes(shapes: Path, shards: Path, tmp_path: Path) -> None:
    packed(shapes, tmp_path / "again", 2 * 3500 + 4096)
    first, again = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (shards, tmp_path / "again")
    )
    assert first == again and "train-000003.tar" in first
    assert all(len(content) < 12_000 for content in first.values())


@pytest.mark.parametrize("key", ["a/b", "a.b.c", "50%2F", "bonn/ä.1 x", "x" * 90, "é" * 120])
def test_any_key_comes_back(tmp_path: Path, key: str) -> None:
    (tmp_path / "data/images" / key).parent.mkdir(parents=True)
    for name in (key, f"{key}y"):
        (tmp_path / f"data/images/{name}.PNG").write_bytes(IMAGE)
        path = tmp_path / f"data/masks/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(LABEL)
    (tmp_path / "data/dataset.toml").write_text(
        '[labels]\nencoding = "index"\nclasses = ["a", "b", "c"]\n[splits.train]\n'
        'images = "images/{key}.PNG"\nlabels = "masks/{key}.png"\n'
    )
    split = packed(tmp_path / "data", tmp_path / "out").split("train")
    assert set(split.keys) == {key, f"{key}y"}
    assert split[0].image.shape == (4, 6, 3)
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        assert not any("/" in name for name in tar.getnames())


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2, unique=True))
def test_two_keys_never_share_a_name(keys: list[str]) -> None:
    assert len({member_stem(key) for key in keys}) == 2
    assert not set("./") & set(member_stem(keys[0]))


def test_webdataset_reads_ours(shards: Path) -> None:
    ours = {sample.key: sample for sample in Dataset.open(shards).split("train")}
    paths = sorted(str(path) for path in shards.glob("train-*.tar"))
    theirs = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert {sample["__key__"] for sample in theirs} == ours.keys() and len(theirs) == 9
    for sample in theirs:
        mine = ours[sample["__key__"]]
        label = np.asarray(Image.open(io.BytesIO(sample["label.png"])))
        image = np.asarray(Image.open(io.BytesIO(sample["png"])))
        assert (label == mine.label).all() and (image == mine.image).all()


def test_ours_reads_webdataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {}
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=2, verbose=0) as sink:
        for index in range(5):
            image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            label = rng.integers(0, 3, SIZE, np.uint8)
            key = f"part/{index:03}"
            written[key] = image, label
            sink.write({"__key__": key, "png": image, "label.png": label, "json": {"index": index}})
    split = read(tmp_path)
    assert split.keys == tuple(written) and len(split.paths) == 3
    for sample in split:
        assert (sample.image == written[sample.key][0]).all()
        assert (sample.label == written[sample.key][1]).all()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read(tmp_path: Path, form: int) -> None:
    folder = "a" * 90 if form == tarfile.USTAR_FORMAT else "ä" * 90
    names = [f"{folder}/short.jpg", f"{folder}/short.label.png", "./x.JPEG", "./x.Label.PNG"]
    members = dict(zip(names, [IMAGE, LABEL] * 2, strict=True)) | {"._x.jpg": b"", "x.cls": b"1"}
    write_tar(tmp_path / "one.tar", members, form, mtime=0.5)  # a header of its own for the half
    split = read(tmp_path)
    assert split.keys == (f"{folder}/short", "x")
    assert split[0].label.tolist()[0] == [0, 1, 2, 255, 0, 0]


def test_of_the_tar_program(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, content in {f"{'n' * 120}.png": IMAGE, f"{'n' * 120}.label.png": LABEL}.items():
        (tmp_path / "files" / name).write_bytes(content)
    subprocess.run(["tar", "cf", "../one.tar", "."], cwd=tmp_path / "files", check=True)
    assert read(tmp_path).keys == ("n" * 120,)


def test_an_order_has_all_samples_and_follows_the_disk(tmp_path: Path) -> None:
    for shard in range(10):
        members = {
            f"{shard}-{index}{suffix}": content
            for index in range(6)
            for suffix, content in ((".png", IMAGE), (".label.png", LABEL))
        }
        write_tar(tmp_path / f"{shard}.tar", members)
    split = read(tmp_path)
    order = split.order(np.random.default_rng([0, 1]))
    assert sorted(order) == list(range(60))
    assert (order == split.order(np.random.default_rng([0, 1]))).all()
    assert (order != split.order(np.random.default_rng([0, 2]))).any()
    shards = order // 6
    windows = [set(shards[:24]), set(shards[24:48]), set(shards[48:])]
    assert [len(window) for window in windows] == [4, 4, 2]  # four shards of six at a time
    assert not windows[0] & windows[1] and set.union(*windows) == set(range(10))
    assert (np.diff(shards[:24]) != 0).sum() > 10  # mixed within the window
    assert windows[0] != {0, 1, 2, 3}


def read_keys(split: Shards) -> list[tuple[str, int]]:
    return [(sample.key, int(sample.label.sum())) for sample in split]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_and_threads_share_one(shards: Path, start: str) -> None:
    split = Dataset.open(shards).split("train")
    assert isinstance(split, Shards)
    expected = read_keys(split)
    if start == "fork":
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(read_keys, [split] * 8)) == [expected] * 8
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as pool:
        assert pool.submit(read_keys, split).result() == expected
    assert len(pickle.dumps(split)) < 10_000


def header(**fields: object) -> bytes:
    info = tarfile.TarInfo("a.png")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


FAULTS: dict[str, tuple[Callable[[], bytes | dict[str, bytes]], str]] = {
    "empty": (lambda: b"", "not a tar file"),
    "text": (lambda: b"hello " * 500, "not a tar file"),
    "gzip": (
        lambda: b"\x1f\x8b\x08" + bytes(range(256)) * 9,
        "not a tar file.* do not compress it",
    ),
    "zeros": (lambda: bytes(10240), "no samples in them"),
    "no end": (lambda: header(size=5) + bytes(511) + b"x", "cut short at byte 1024"),
    "link": (lambda: header(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "device": (lambda: header(type=tarfile.CHRTYPE), "is a link or a device"),
    "no label": (lambda: {"a.png": IMAGE}, r"a has no label \(KEY.label.png\)"),
    "no image": (lambda: {"a.label.png": LABEL}, "a has no image"),
    "two images": (lambda: {"a.png": IMAGE, "a.jpg": IMAGE, "a.label.png": LABEL}, "two images"),
    "empty image": (lambda: {"a.png": b"", "a.label.png": LABEL}, "0 bytes for the image of a"),
    "outside": (lambda: {"../a.png": IMAGE, "../a.label.png": LABEL}, "cannot be a sample's key"),
    "escaped outside": (lambda: {"%2E%2E%2Fa.png": IMAGE}, "cannot be a sample's key"),
    "absolute": (lambda: {"/a.png": IMAGE, "/a.label.png": LABEL}, "cannot be a sample's key"),
    "long": (lambda: {"n" * 1001 + ".png": IMAGE}, "'n{80}' cannot be a sample's key"),
    "newline": (lambda: {"a\nb.png": IMAGE, "a\nb.label.png": LABEL}, "cannot be a sample's key"),
    "bad image": (lambda: {"a.png": IMAGE[:50], "a.label.png": LABEL}, r"x\.tar/a"),
    "bad label": (lambda: {"a.png": IMAGE, "a.label.png": b"?"}, r"x\.tar/a\.label\.png: not an"),
    "colours": (lambda: {"a.png": IMAGE, "a.label.png": IMAGE}, r"a\.label\.png: RGB"),
    "unknown id": (
        lambda: {"a.png": IMAGE, "a.label.png": png(np.full((4, 6), 3, np.uint8))},
        "id 3, where 0 to 2 and 255 can be",
    ),
    "sizes": (
        lambda: {"a.png": IMAGE, "a.label.png": png(np.zeros((6, 4), np.uint8))},
        "the label of a: 4x6, but its image a is 6x4",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line(tmp_path: Path, fault: str) -> None:
    make, message = FAULTS[fault]
    content = make()
    if isinstance(content, dict):
        write_tar(tmp_path / "x.tar", content)
    else:
        (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(read(tmp_path))
    assert "\n" not in str(error.value)


def test_a_giant_member_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header(size=1 << 34))
        file.truncate(1 << 35)  # holes: it takes no room
    with pytest.raises(InputError, match="17179869184 bytes for the image of a"):
        read(tmp_path)


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    for pattern in ("*.tar", "", "/x*.tar", "**x"):
        with pytest.raises(InputError) as error:
            read(tmp_path, pattern)
        assert "\n" not in str(error.value)
    members = {"a.png": IMAGE, "a.label.png": LABEL}
    write_tar(tmp_path / "1.tar", members)
    write_tar(tmp_path / "2.tar", members)
    with pytest.raises(InputError, match=r"2\.tar: a is in 1\.tar, too"):
        read(tmp_path)
    split = read(tmp_path, "1.tar")
    os.truncate(tmp_path / "1.tar", 600)
    with pytest.raises(InputError, match="cut short after it was opened"):
        split[0]
    (tmp_path / "1.tar").unlink()
    with pytest.raises(InputError, match=r"1\.tar: No such file"):
        split[0]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_tar_is_read_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.tar"
    form = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    write_tar(path, {"ä" * 99 + ".png": IMAGE, "ä" * 99 + ".label.png": LABEL}, form)
    content = bytearray(path.read_bytes()[: data.draw(st.integers(0, 10240))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=4)):
        content[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
    path.write_bytes(content)
    try:
        list(read(path.parent, path.name))
    except InputError as error:
        assert "\n" not in str(error)


def test_a_bad_dataset_stops_the_packing_and_leaves_nothing(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 5, 1, size=SIZE)
    (tmp_path / "data/train-labels/0003.png").write_bytes(png(np.full(SIZE, 77, np.uint8)))
    with pytest.raises(InputError, match=r"0003\.png: id 77"):
        packed(tmp_path / "data", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(InputError, match="exists already"):
        packed(shapes, tmp_path / "out")
    (tmp_path / "out/mine").unlink()
    assert len(packed(shapes, tmp_path / "out").split("val")) == 3
    with pytest.raises(InputError, match="packed already"):
        packed(tmp_path / "out", tmp_path / "twice")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("splits.val", 'splits."../../val"', "cannot name files"),
        ("val/{key}.png", "val/{key}.svg", "no image suffix"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_shapes(tmp_path / "data", 1, 1, size=SIZE)
    (tmp_path / "data/val/0000.svg").write_bytes(IMAGE)
    path = tmp_path / "data/dataset.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        packed(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_the_description_survives_any_words(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 1, 1, size=SIZE)
    path = tmp_path / "data/dataset.toml"
    words = r"a \"quoted\" \\ \U0001F600 name" + r"\n[splits.x]"
    text = path.read_text().replace('"shapes"', f'"{words}"').replace('"disc"', f'"{words}"')
    path.write_text(
        text.replace("] }", '], group = "things/round" }').replace(
            "true }", 'true, group = "things/round" }'
        )
    )
    files, tars = Dataset.open(path), packed(path.parent, tmp_path / "out")
    assert "😀" in tars.name and tars.name == files.name
    assert tars.taxonomy == files.taxonomy and list(tars.splits) == ["train", "val"]
    assert "things/round" in tars.taxonomy.groups


def test_a_killed_packing_leaves_no_dataset(shapes: Path, tmp_path: Path) -> None:
    """Kill -9 while it packs: only a .part is left, which the next one names."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from atrous.data.dataset import Dataset\n"
        "from atrous.data.shards.pack import pack\n"
        "def stop(done, total):\n"
        "    if Path(sys.argv[2] + '.part/train-000000.tar').exists(): time.sleep(300)\n"
        "pack(Dataset.open(sys.argv[1]), ['train'], Path(sys.argv[2]), 1, stop)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(shapes), str(tmp_path / "out")])
    while not (tmp_path / "out.part/train-000000.tar").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"]
    with pytest.raises(InputError, match=r"out\.part: left by a command that was cut off"):
        packed(shapes, tmp_path / "out")
