"""What the values of masks mean: blurred, thin, transparent and empty ones, against the truth."""

import io
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import mask, save, write_images, write_index
from PIL import Image, ImageDraw

from atrous.data.dataset import Dataset
from atrous.doctor import Diagnosis, examine
from atrous.errors import InputError

SIZE = (96, 96)
COUNT = 8

Labels = list[np.ndarray]


def codes(diagnosis: Diagnosis, severity: str = "problem") -> set[str]:
    return {f.code for f in diagnosis.findings if f.severity == severity}


def message(diagnosis: Diagnosis, code: str) -> str:
    return next(f.message for f in diagnosis.findings if f.code == code)


def lines(width: int, num_classes: int = 2) -> Labels:
    """Broken lines of each class across a mask, (H, W) uint8."""
    labels = []
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        picture = Image.new("L", SIZE)
        for place in range(1, num_classes):
            points = [(x * 24, int(rng.integers(0, 96))) for x in range(5)]
            ImageDraw.Draw(picture).line(points, fill=place, width=width)
        labels.append(np.array(picture))
    return labels


def blobs(num_classes: int = 2) -> Labels:
    labels = []
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        picture = Image.new("L", SIZE)
        for place in range(1, num_classes):
            x, y = rng.integers(0, 60, 2).tolist()
            ImageDraw.Draw(picture).ellipse((x, y, x + 32, y + 26), fill=place)
        labels.append(np.array(picture))
    return labels


def tiny(objects: int = 5) -> Labels:
    """Squares of 3 pixels."""
    labels = []
    for seed in range(COUNT):
        label = np.zeros(SIZE, np.uint8)
        for y, x in np.random.default_rng(seed).integers(0, 93, (objects, 2)):
            label[y : y + 3, x : x + 3] = 1
        labels.append(label)
    return labels


def jpeg(array: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG", quality=quality)  # colours are halved: 4:2:0
    return np.array(Image.open(content))


def there_and_back(array: np.ndarray, factor: float, method: Image.Resampling) -> np.ndarray:
    height, width = array.shape[:2]
    other = Image.fromarray(array).resize((round(width * factor), round(height * factor)), method)
    return np.array(other.resize((width, height), method))


def write(
    folder: Path,
    labels: Sequence[np.ndarray],
    draw: Callable[[np.ndarray], np.ndarray | Image.Image],
    suffix: str = "png",
    **options,
) -> Diagnosis:
    """Write a folder of masks, each drawn from its label, and what the doctor proposes for it."""
    for number, label in enumerate(labels):
        save(folder / f"images/{number:03}.png", np.full((*label.shape, 3), number, np.uint8))
        mask = draw(label)
        picture = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
        (folder / "masks").mkdir(exist_ok=True)
        picture.save(folder / f"masks/{number:03}.{suffix}", **options)
    diagnosis = examine(folder)
    diagnosis.write()
    return diagnosis


def read_all(folder: Path) -> Labels:
    """The labels of all samples, by the order of their names."""
    dataset = Dataset.open(folder)
    both = [
        (s.keys[i], s.label(i)) for s in map(dataset.split, dataset.splits) for i in range(len(s))
    ]
    return [label for _, label in sorted(both, key=lambda entry: entry[0])]


def differ(folder: Path, labels: Sequence[np.ndarray]) -> int:
    """How many pixels of all samples are not as the labels say, by the ids of the data set."""
    read = read_all(folder)
    assert len(read) == len(labels)
    return sum(int((a != b).sum()) for a, b in zip(read, labels, strict=True))


LINEAR, CUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


@pytest.mark.parametrize("quality", [50, 90, 98])
@pytest.mark.parametrize("kind", ["L", "RGB", "from palette", "PNG of a JPEG"])
@pytest.mark.parametrize("labels", [lines(1), lines(5), tiny(1)])
def test_black_and_white_of_jpeg_are_two_classes(
    tmp_path: Path, labels: Labels, kind: str, quality: int
) -> None:
    def draw(label: np.ndarray) -> np.ndarray | Image.Image:
        if kind == "PNG of a JPEG":
            return jpeg(255 * label, quality)
        if kind == "from palette":
            picture = Image.fromarray(label)
            picture.putpalette([0, 0, 0, 255, 255, 255])
            return picture.convert("RGB")
        return np.stack([255 * label] * 3, -1) if kind == "RGB" else 255 * label

    options = {} if kind == "PNG of a JPEG" else {"quality": quality}
    suffix = "png" if kind == "PNG of a JPEG" else "jpg"
    diagnosis = write(tmp_path, labels, draw, suffix, **options)
    assert len(diagnosis.classes) == 2 and "one-class" not in codes(diagnosis)
    assert differ(tmp_path, labels) == 0


@pytest.mark.parametrize("levels", [(0, 255), (255, 0), (0, 128), (3, 252), (0, 250), (16, 235)])
@pytest.mark.parametrize("labels", [lines(3), tiny()])
def test_two_greys_of_jpeg_are_two_classes(
    tmp_path: Path, labels: Labels, levels: tuple[int, int]
) -> None:
    write(tmp_path, labels, lambda label: jpeg(np.array(levels, np.uint8)[label], 80))
    truth = [label if levels[0] < levels[1] else 1 - label for label in labels]
    assert differ(tmp_path, truth) == 0


@pytest.mark.parametrize(
    ("width", "factor", "method", "most"),
    [
        (1, 2, LINEAR, 0.05),
        (2, 2, LINEAR, 0),
        (3, 2, LINEAR, 0),
        (5, 2, LINEAR, 0.01),
        (3, 1.5, CUBIC, 0),
        (5, 0.67, CUBIC, 0.02),
        (3, 0.7, Image.Resampling.LANCZOS, 0.02),
        (3, 0.67, LINEAR, 0.05),
        (2, 0.67, CUBIC, 0.05),
        (1, 0.67, LINEAR, 0.9),  # too little is left of such lines
    ],
)
def test_resized_lines_are_the_second_class(
    tmp_path: Path, width: int, factor: float, method: Image.Resampling, most: float
) -> None:
    labels = lines(width)
    diagnosis = write(tmp_path, labels, lambda label: there_and_back(255 * label, factor, method))
    assert diagnosis.classes == ("background", "foreground")
    assert diagnosis.scan.labels.unknown == "nearest"
    guess = next(f.fix for f in diagnosis.findings if f.code == "interpolated")
    assert "guesses that only 0, " in guess
    assert differ(tmp_path, labels) <= most * sum(int(label.sum()) for label in labels)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("quality", [75, 90, 98])
@pytest.mark.parametrize("labels", [lines(2, 4), blobs(4)])
def test_spread_greys_of_jpeg_are_the_nearest(
    tmp_path: Path, labels: Labels, quality: int, color: bool
) -> None:
    greys = np.array([0, 85, 170, 255], np.uint8)
    colors = np.stack([greys] * 3, -1) if color else greys
    diagnosis = write(tmp_path, labels, lambda x: colors[x], "jpg", quality=quality)
    assert len(diagnosis.classes) == 4
    assert differ(tmp_path, labels) == 0


def test_three_greys_that_were_resized_are_the_nearest(tmp_path: Path) -> None:
    labels = blobs(3)
    greys = np.array([0, 128, 255], np.uint8)
    diagnosis = write(tmp_path, labels, lambda x: there_and_back(greys[x], 0.67, CUBIC))
    assert list(diagnosis.scan.class_of) == [0, 128, 255]
    # A blurred edge from 0 to 255 passes 128 on its way.
    assert differ(tmp_path, labels) < 0.02 * sum(label.size for label in labels)


def test_ids_beside_a_void_of_255_are_not_merged_by_blur(tmp_path: Path) -> None:
    stripes = np.add.outer(range(96), range(96)) % 40 < 3
    labels = [np.where(stripes, 255, label).astype(np.uint8) for label in blobs(3)]
    for quality in (75, 95):
        folder = tmp_path / str(quality)
        folder.mkdir()
        diagnosis = write(folder, labels, lambda x: x, "jpg", quality=quality)
        assert {0, 1, 2} <= {*diagnosis.scan.class_of} and 255 in diagnosis.scan.ignored
        assert diagnosis.scan.labels.unknown != "nearest" and "interpolated" in codes(diagnosis)


def test_drawn_masks_among_blurred_ones_say_what_the_classes_are(tmp_path: Path) -> None:
    labels = lines(2)
    turn = iter(range(COUNT))
    write(tmp_path, labels, lambda x: jpeg(255 * x, 80) if next(turn) % 2 else 255 * x)
    assert differ(tmp_path, labels) == 0


def test_empty_masks_among_blurred_ones_do_not_hide_the_classes(tmp_path: Path) -> None:
    labels = [label * (number % 3 == 0) for number, label in enumerate(lines(3))]
    diagnosis = write(tmp_path, labels, lambda x: 255 * x, "jpg", quality=85)
    assert diagnosis.classes == ("background", "foreground")
    assert differ(tmp_path, labels) == 0


@pytest.mark.parametrize("names", ["background\ncrack\n", "crack\n"])
def test_names_of_two_classes_are_those_of_two_levels(tmp_path: Path, names: str) -> None:
    (tmp_path / "classes.txt").write_text(names)
    labels = lines(3)
    diagnosis = write(tmp_path, labels, lambda x: there_and_back(128 * x, 2, LINEAR))
    assert diagnosis.classes == ("background", "crack")
    assert differ(tmp_path, labels) == 0


@pytest.mark.parametrize("step", [255, 85])
def test_names_of_other_values_than_the_levels_are_refused(tmp_path: Path, step: int) -> None:
    (tmp_path / "classes.txt").write_text("background\ncrack\nroad\n")
    labels = blobs(255 // step + 1)
    with pytest.raises(InputError, match="does not fit the masks, which hold 0, ") as error:
        write(tmp_path, labels, lambda x: (step * x).astype(np.uint8), "jpg", quality=85)
    assert "\n" not in str(error.value) and not (tmp_path / "dataset.toml").exists()


@pytest.mark.parametrize("names", ["background\ncar\nroad\n", "car\nroad\nsky\n"])
def test_names_count_from_the_least_id_where_that_is_1(tmp_path: Path, names: str) -> None:
    (tmp_path / "classes.txt").write_text(names)
    labels = blobs(3)
    diagnosis = write(tmp_path, labels, lambda x: x + np.uint8(1))
    assert diagnosis.classes == tuple(names.split()) and differ(tmp_path, labels) == 0
    assert "= 1" in next(f.message for f in diagnosis.findings if f.code == "names-do-not-fit")


def test_white_that_blurred_masks_lose_is_said(tmp_path: Path) -> None:
    labels, turn = blobs(2), iter(range(COUNT))
    both = (lambda x: x, lambda x: jpeg(255 * x, 85))
    diagnosis = write(tmp_path, labels, lambda x: both[next(turn) % 2](x))
    lost = sum(int((np.array(Image.open(p)) == 255).sum()) for p in tmp_path.glob("masks/*"))
    (finding,) = (f for f in diagnosis.findings if f.code == "interpolated")
    assert finding.fix.endswith(f"and 255 ({lost:,} pixels)") and lost > 100


def test_ids_that_number_objects_are_told(tmp_path: Path) -> None:
    labels = []
    for number in range(COUNT):
        label = np.zeros(SIZE, np.uint8)
        for i in range(1, 4 + number % 5):
            label[12 * i - 10 : 12 * i, 5 : 20 + number] = i
        labels.append(label)
    assert codes(write(tmp_path / "a", labels, lambda x: x)) == {"numbered-objects"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/classes.txt").write_text("".join(f"c{i}\n" for i in range(8)))
    assert codes(write(tmp_path / "b", labels, lambda x: x)) == set()
    few = [np.minimum(label, 2 + number % 3) for number, label in enumerate(labels)]
    assert "numbered-objects" not in codes(write(tmp_path / "c", few, lambda x: x))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_classes.csv", "Pixel Value, Class\n255, car\n0, ground\n"),
        ("classes.txt", "255: car\n0: ground\n"),
        ("id2label.json", '{"255": "car", "0": "ground"}'),
    ],
)
def test_numbers_in_a_file_of_names_tell_which_is_which(
    tmp_path: Path, suffix: str, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    labels = blobs()
    assert write(tmp_path, labels, lambda x: 255 * x, suffix).classes == ("car", "ground")
    assert differ(tmp_path, [1 - label for label in labels]) == 0


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("step", [255, 120])
def test_greys_in_a_file_of_names_tell_which_is_which(
    tmp_path: Path, suffix: str, step: int
) -> None:
    labels = blobs(255 // step + 1)
    rows = [f"c{i},{step * i},{step * i},{step * i}\n" for i in (1, 0, 2) if step * i < 256]
    (tmp_path / "class_dict.csv").write_text("".join(["name,r,g,b\n", *rows]))
    diagnosis = write(tmp_path, labels, lambda x: (step * x).astype(np.uint8), suffix)
    names = diagnosis.classes
    assert names == tuple(row.split(",")[0] for row in rows)
    for read, label in zip(read_all(tmp_path), labels, strict=True):
        assert (np.array([int(name[1:]) for name in names])[read] == label).all()


def test_names_of_spread_ids_count_in_order(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ground\nroad\nriver\n")
    labels = lines(1, 3)
    diagnosis = write(tmp_path, labels, lambda x: 100 * x)
    assert diagnosis.classes == ("ground", "road", "river")
    assert differ(tmp_path, labels) == 0


def test_names_of_spread_ids_by_number_are_believed(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("200 river\n0 ground\n100 road\n")
    labels = lines(1, 3)
    diagnosis = write(tmp_path, labels, lambda x: 100 * x)
    names = [diagnosis.classes[diagnosis.scan.class_of[i]] for i in (0, 100, 200)]
    assert names == ["ground", "road", "river"] and codes(diagnosis) == set()


def test_a_level_below_255_says_nothing_of_255(tmp_path: Path) -> None:
    diagnosis = write(tmp_path, lines(3), lambda x: there_and_back(128 * x, 2, LINEAR))
    assert list(diagnosis.scan.class_of) == [0, 128] and codes(diagnosis) == {"interpolated"}


@pytest.mark.parametrize("spoil", ["jpg", "linear", "cubic"])
@pytest.mark.parametrize("pair", [((0, 0, 0), (128, 0, 0)), ((255, 255, 255), (0, 200, 0))])
def test_a_thin_colour_is_a_class(tmp_path: Path, pair: tuple, spoil: str) -> None:
    labels = lines(3)
    colors = np.array(pair, np.uint8)
    blur = {
        "jpg": lambda x: jpeg(colors[x], 90),
        "linear": lambda x: there_and_back(colors[x], 2, LINEAR),
        "cubic": lambda x: there_and_back(colors[x], 1.5, CUBIC),
    }[spoil]
    diagnosis = write(tmp_path, labels, blur)
    assert len(diagnosis.classes) == 2
    back = [x if pair[0] == (0, 0, 0) else 1 - x for x in labels]
    assert differ(tmp_path, back) <= 0.03 * sum(int(label.sum()) for label in labels)


def test_a_thin_colour_beside_regions_of_two_is_told(tmp_path: Path) -> None:
    labels = [np.where(line, 3, blob) for line, blob in zip(lines(2), blobs(3), strict=True)]
    colors = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 255)], np.uint8)
    diagnosis = write(tmp_path, labels, lambda x: there_and_back(colors[x], 0.67, LINEAR))
    mend = next(f.fix for f in diagnosis.findings if f.code == "interpolated")
    assert len(diagnosis.classes) == 4 or "thin classes may be lost" in mend


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "values",
    [
        (0, 1),
        (0, 255),
        (0, 254),
        (1, 2),
        (0, 1, 2, 3),
        (0, 10, 20, 30),
        (0, 64, 128, 192),
        (0, 80, 160, 255),
        (0, 1, 2, 200),
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)),
        ((0, 0, 0), (80, 80, 80), (160, 160, 160), (255, 255, 255)),
        ((9, 9, 9), (10, 10, 10), (11, 11, 11)),
    ],
)
def test_thin_lines_are_classes(tmp_path: Path, values: tuple, width: int) -> None:
    labels = lines(width, len(values))
    drawn = np.array(values, np.uint8)
    diagnosis = write(tmp_path, labels, lambda x: drawn[x])
    assert codes(diagnosis) <= {"foreground-255"}
    assert differ(tmp_path, labels) == 0


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (200, 0, 0), (0, 180, 0)


def rgba(colors: Sequence[tuple[int, int, int]], alpha: Sequence[int]):
    table = np.array([(*color, a) for color, a in zip(colors, alpha, strict=True)], np.uint8)
    return lambda label: table[label]


def grey_alpha(greys: Sequence[int], alpha: Sequence[int]):
    return lambda label: Image.fromarray(
        np.stack([np.array(greys, np.uint8)[label], np.array(alpha, np.uint8)[label]], -1), "LA"
    )


@pytest.mark.parametrize(
    ("num_classes", "draw"),
    [
        (2, rgba([BLACK, BLACK], [0, 255])),
        (2, rgba([WHITE, WHITE], [0, 255])),
        (2, rgba([WHITE, BLACK], [0, 255])),
        (2, rgba([BLACK, BLACK], [0, 90])),  # an overlay, half transparent
        (2, rgba([BLACK, BLACK], [0, 1])),
        (2, grey_alpha([0, 0], [0, 255])),
        (3, grey_alpha([0, 1, 2], [255, 255, 255])),
        (3, rgba([BLACK, RED, GREEN], [255, 255, 255])),
        (3, rgba([BLACK, RED, GREEN], [0, 255, 255])),
        (3, rgba([BLACK, BLACK, RED], [0, 255, 255])),
        (3, rgba([BLACK, RED, GREEN], [0, 102, 102])),
        (3, rgba([BLACK, RED, GREEN], [0, 0, 0])),
    ],
)
def test_transparent_masks(
    tmp_path: Path, num_classes: int, draw: Callable[[np.ndarray], np.ndarray]
) -> None:
    labels = lines(2, num_classes)
    diagnosis = write(tmp_path, labels, draw)
    assert codes(diagnosis) == set() and len(diagnosis.classes) == num_classes
    assert differ(tmp_path, labels) == 0
    labels_table = tomllib.loads(diagnosis.toml)["labels"]
    is_clear = labels_table.get("map", {}).get("transparent") == 0
    assert ("transparent" in codes(diagnosis, "note")) == is_clear
    assert codes(examine(tmp_path)) == set()  # read as described, it is the same


def test_names_of_greys_on_a_transparent_ground(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("background\ncar\nroad\n")
    labels = blobs(3)
    diagnosis = write(tmp_path, labels, grey_alpha([0, 1, 2], [0, 255, 255]))
    assert diagnosis.classes == ("background", "car", "road")
    assert differ(tmp_path, labels) == 0


def test_blank_masks_on_a_transparent_ground_are_background(tmp_path: Path) -> None:
    labels = [label * (number % 2) for number, label in enumerate(lines(3))]
    write(tmp_path, labels, rgba([BLACK, BLACK], [0, 255]))
    assert differ(tmp_path, labels) == 0


def test_a_black_and_a_transparent_ground_are_one_class(tmp_path: Path) -> None:
    labels, turn = blobs(3), iter(range(COUNT))
    both = [rgba([BLACK, RED, GREEN], alpha) for alpha in ([0, 255, 255], [255] * 3)]
    write(tmp_path, labels, lambda x: both[next(turn) % 2](x))
    assert differ(tmp_path, labels) == 0


def test_palettes_whose_order_changes_are_told_by_their_transparency(tmp_path: Path) -> None:
    labels = lines(3)
    for number, label in enumerate(labels):
        save(tmp_path / f"images/{number:03}.png", np.full((*SIZE, 3), number, np.uint8))
        picture = Image.fromarray(label if number % 2 else 1 - label)
        picture.putpalette([0, 0, 0, 0, 0, 0])
        path = tmp_path / f"masks/{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path, transparency=bytes([0, 255] if number % 2 else [255, 0]))
    examine(tmp_path).write()
    assert differ(tmp_path, labels) == 0


@pytest.mark.parametrize("alpha", [(0, 1, 2), (0, 128, 255)])
def test_several_levels_of_transparency_are_refused(tmp_path: Path, alpha: tuple) -> None:
    with pytest.raises(InputError, match=r"000\.png: one colour in 3 levels of transparency"):
        write(tmp_path, blobs(3), rgba([BLACK] * 3, alpha))


NO_DATA = 42113


@pytest.mark.parametrize(
    ("dtype", "value", "declared"),
    [
        (np.int32, -1, None),
        (np.int32, -9999, "-9999"),
        (np.int32, -(2**31), "-2147483648"),
        (np.int32, 2**31 - 1, "2147483647"),
        (np.uint16, 65535, "65535"),
        (np.uint8, 255, "255"),
        (np.uint8, 99, "99"),
        (np.float32, np.nan, None),
        (np.float32, np.finfo(np.float32).min, "-3.4028234663852886e+38"),
        (np.float32, np.finfo(np.float32).max, "3.4028234663852886e+38"),
        (np.float32, -1, "-1"),
    ],
)
def test_no_data_is_ignored_and_told(
    tmp_path: Path, dtype: type, value: float, declared: str | None
) -> None:
    labels = blobs(3)
    for label in labels:
        label[:9] = 255

    def draw(label: np.ndarray) -> np.ndarray:
        return np.where(label == 255, value, label.astype(np.float64)).astype(dtype)

    tags = {"tiffinfo": {NO_DATA: declared}} if declared else {}
    diagnosis = write(tmp_path, labels, draw, "tif", **tags)
    assert codes(diagnosis) == set() and len(diagnosis.classes) == 3
    assert "it is ignored" in message(diagnosis, "no-data")
    assert differ(tmp_path, labels) == 0
    assert codes(examine(tmp_path)) == set()


def test_declared_no_data_among_the_classes_is_read_as_a_class_and_told(tmp_path: Path) -> None:
    labels = blobs(3)
    diagnosis = write(tmp_path, labels, lambda x: x, "tif", tiffinfo={NO_DATA: "0"})
    assert "0, declared as no data: it is read as a class" in message(diagnosis, "no-data")
    assert differ(tmp_path, labels) == 0


def test_white_that_is_declared_as_no_data_is_no_class(tmp_path: Path) -> None:
    diagnosis = write(tmp_path, blobs(), lambda x: 255 * x, "tif", tiffinfo={NO_DATA: "255"})
    assert "one-class" in codes(diagnosis) and diagnosis.scan.ignored == (255,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_masks_of_any_number_are_ids(tmp_path: Path, dtype: type) -> None:
    labels = lines(2, 4)
    diagnosis = write(tmp_path, labels, lambda x: x.astype(dtype), "tif")
    assert codes(diagnosis) == set()
    assert differ(tmp_path, labels) == 0


@pytest.mark.parametrize(("factor", "what"), [(0.5, "holds 0.5"), (1e20, r"holds 1e\+20")])
def test_fractions_are_no_ids(tmp_path: Path, factor: float, what: str) -> None:
    with pytest.raises(InputError, match="nothing is written"):
        write(tmp_path, blobs(), lambda x: (x * factor).astype(np.float32), "tif")
    faults = [f for f in examine(tmp_path).findings if f.code == "unreadable-mask"]
    assert faults[0].count == COUNT
    with pytest.raises(InputError, match=what):
        raise InputError(faults[0].examples[0])


def test_one_class_is_a_problem_that_says_what_was_seen(tmp_path: Path) -> None:
    diagnosis = write(tmp_path, blobs(), lambda x: 0 * x)
    assert codes(diagnosis) == {"one-class"}
    said = message(diagnosis, "one-class")
    assert said == "1 class to train on, class 0: masks hold 0: 73,728 pixels (class 0)"
    assert "one-class" in codes(examine(tmp_path))  # described, too


def test_a_class_that_is_in_val_alone_leaves_one_to_train_on(tmp_path: Path) -> None:
    for split, numbers in (("train", range(4)), ("val", range(4, 8))):
        write_images(tmp_path / split, 4, start=4 * (split == "val"))
        for number in numbers:
            mask = np.zeros((40, 56), np.uint8)
            mask[5:20, 5:20] = split == "val"
            save(tmp_path / f"{split}/masks/{number:03}.png", mask)
    diagnosis = examine(tmp_path)
    assert len(diagnosis.classes) == 2 and "one-class" in codes(diagnosis)


def test_few_thin_ids_that_are_blurred_are_told(tmp_path: Path) -> None:
    """Ids 0 to 9 whose lines are blurred cannot be told from a drawn id: no guess is made."""
    diagnosis = write(tmp_path, lines(2), lambda x: there_and_back(9 * x, 0.67, LINEAR))
    assert diagnosis.scan.labels.unknown != "nearest" and "interpolated" in codes(diagnosis)


@pytest.mark.parametrize("lines", [["road,255,255,255", "bg,0,0,0"], ["bg,0,0,0", "road,9,9,9"]])
def test_the_darker_of_two_named_greys_is_the_lower_id(tmp_path: Path, lines: list[str]) -> None:
    write_index(tmp_path, 5)
    for number in range(5):
        save(tmp_path / f"masks/{number:03}.png", mask(number, (0, 1)))
    (tmp_path / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]))
    examine(tmp_path).write()
    dataset = Dataset.open(tmp_path)
    split = dataset.split("train")
    for index, key in enumerate(split.keys):
        names = np.array(dataset.taxonomy.classes)[split.label(index)]
        assert np.array_equal(names == "road", mask(int(key), (0, 1)) == 1)
