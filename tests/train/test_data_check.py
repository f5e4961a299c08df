"""What a training is told about its labels, and by what a resume knows its data."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.train.data_check import (
    LabelCounts,
    check_same_data,
    checked_labels,
    count_labels,
    has_labels,
    identity,
)


def write_set(
    folder: Path,
    masks: list[np.ndarray],
    classes: tuple[str, ...] = ("bg", "crack", "rust"),
    head: str = "",
    labels: str = "",
) -> Dataset:
    """A set of grey photos with these masks, 0.png and so on."""
    for name in ("i", "m"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(np.full((*mask.shape, 3), 99, np.uint8)).save(folder / f"i/{index}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"m/{index}.png")
    named = ", ".join(f'"{name}"' for name in classes)
    (folder / "dataset.toml").write_text(
        f'{head}\n[labels]\nencoding = "index"\n{labels}\nclasses = [{named}]\n'
        '[splits.train]\nimages = "i/{key}.png"\nlabels = "m/{key}.png"\n'
    )
    return Dataset.open(folder)


def mask_of(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(2, -1)


def checked(dataset: Dataset, weights: tuple[float, ...] = ()) -> tuple[LabelCounts, list[str]]:
    lines: list[str] = []

    def watch(what: str) -> nullcontext:
        return nullcontext(lambda done, total: None)

    samples = dataset.split("train")
    return checked_labels(samples, dataset.taxonomy, weights, lines.append, watch), lines


def test_counts_are_exact(tmp_path: Path) -> None:
    dataset = write_set(
        tmp_path, [mask_of(0, 0, 0, 1), mask_of(2, 0, 255, 255), mask_of(*[255] * 4)]
    )
    counts, lines = checked(dataset)
    assert counts == LabelCounts(masks=3, total=3, unlabelled=1, pixels=(4, 1, 1), ignored=6)
    assert lines == [
        "labels of 3 training masks: bg 66.7 %, crack 16.7 %, rust 16.7 %, and ignored 50.0 %",
        "warning: 1 of 3 training masks are ignored whole and teach nothing; "
        "check labels.map and labels.ignore in dataset.toml",
    ]


def test_no_more_masks_are_read_than_show_all_classes(tmp_path: Path) -> None:
    masks = [mask_of(0, 1, 2, 2)] * 200
    samples = write_set(tmp_path, masks).split("train")
    done: list[tuple[int, int]] = []
    counts = count_labels(samples, 3, lambda *step: done.append(step))
    assert counts.masks == 64 and counts.total == 200 and counts.pixels == (64, 64, 128)
    assert done[-1] == (64, 200)
    for index in range(200):  # the rare class is in the last mask alone, and is found
        Image.fromarray(mask_of(0, 1, 1, 1)).save(tmp_path / f"m/{index}.png")
    Image.fromarray(mask_of(2, 1, 1, 1)).save(tmp_path / "m/199.png")
    counts = count_labels(samples, 3)
    assert counts.seen == [0, 1, 2] and counts.pixels[2] == 1
    assert count_labels(samples, 4).masks == 200


def test_a_class_that_no_mask_holds_is_said(tmp_path: Path) -> None:
    _, lines = checked(write_set(tmp_path, [mask_of(0, 0, 0, 2)]))
    assert lines[0] == "labels of 1 training mask: bg 75.0 %, rust 25.0 %"
    assert lines[1].startswith("warning: no training mask holds crack, so it is never learned")


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (
            (0, 0, 255, 255),
            "",
            r"bg 100\.0 %, and ignored 50\.0 %: one class alone",
        ),  # a 0/255 mask
        ((1, 1, 1, 1), "", r"crack 100\.0 %: one class alone"),
        ((255, 255, 255, 255), "", "every pixel of its 1 training mask is ignored"),
        ((7, 7, 9, 9), "map = {7 = 1}\nignore = [9]", r"crack 100\.0 %, and ignored 50"),
    ],
)
def test_masks_that_teach_nothing_are_refused(
    tmp_path: Path, values: tuple[int, ...], labels: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        checked(write_set(tmp_path, [mask_of(*values)], labels=labels))


def test_weights_of_absent_classes_alone_are_refused(tmp_path: Path) -> None:
    dataset = write_set(tmp_path, [mask_of(0, 0, 0, 2)])
    with pytest.raises(InputError, match="class_weights are 0 for all classes"):
        checked(dataset, (0, 1, 0))
    checked(dataset, (0, 1, 1))


def test_one_labelled_pixel_is_a_label(tmp_path: Path) -> None:
    ignored = mask_of(*[255] * 4)
    assert not has_labels(write_set(tmp_path / "a", [ignored] * 3).split("train"))
    assert has_labels(
        write_set(tmp_path / "b", [ignored, ignored, mask_of(255, 255, 255, 0)]).split("train")
    )


def described(dataset: Dataset) -> dict[str, dict[str, object]]:
    """What run.json would say of a training on the set."""
    place = {"data": str(dataset.folder), "root": None}
    return {
        "taxonomy": dataset.taxonomy.to_dict(),
        "data": identity(dataset, dataset.split("train")) | place,
    }


def compared(first: Dataset, second: Dataset, forget: tuple[str, ...] = ()) -> str:
    """The line that refuses to go on with `second`, or what is said besides."""
    theirs = described(first)
    theirs["data"] = {k: v for k, v in theirs["data"].items() if k not in forget}
    lines: list[str] = []
    try:
        check_same_data("run", theirs, described(second), lines.append)
    except InputError as error:
        return str(error)
    return " ".join(lines)


TWO = [mask_of(0, 0, 0, 1), mask_of(2, 0, 0, 0)]
OLD = ("named", "samples", "keys_sha256", "val_keys_sha256")
"""What older runs do not say."""


@pytest.mark.parametrize("forget", [(), OLD])
def test_other_data_are_refused_by_what_differs(tmp_path: Path, forget: tuple[str, ...]) -> None:
    first = write_set(tmp_path / "first", TWO, head='name = "first"')
    assert compared(first, first, forget) == ""
    other = write_set(tmp_path / "other", TWO, head='name = "other"')
    line = compared(first, other, forget)
    assert line.startswith(
        "run: was started on the data set first, not other; resume it on its own"
    )
    classes = write_set(tmp_path / "pets", TWO, ("cat", "dog", "cow"), head='name = "first"')
    assert "on 3 classes with bg, crack, rust, not 3 with cat, dog, cow in" in compared(
        first, classes, forget
    )
    order = write_set(tmp_path / "order", TWO, ("rust", "crack", "bg"), head='name = "first"')
    assert "3 classes with bg, rust, not 3 with rust, bg in that place; " in compared(
        first, order, forget
    )


def test_other_keys_are_refused(tmp_path: Path) -> None:
    first = write_set(tmp_path / "first", TWO)
    more = write_set(tmp_path / "more", [*TWO, *TWO])
    assert "was started on 2 training samples, not 4; " in compared(first, more)
    renamed = write_set(tmp_path / "renamed", TWO)
    for name in ("i", "m"):
        (tmp_path / f"renamed/{name}/1.png").rename(tmp_path / f"renamed/{name}/x.png")
    assert "training samples of other keys" in compared(first, renamed)


def test_other_validation_keys_are_refused(tmp_path: Path) -> None:
    first = write_set(tmp_path / "first", TWO)
    split = '[splits.val]\nimages = "i/{key}.png"\nlabels = "m/{key}.png"\n'
    with (tmp_path / "first/dataset.toml").open("a") as file:
        file.write(split)
    both = Dataset.open(tmp_path / "first")
    says = "was started on validation samples of other keys, or none, not those of "
    assert says in compared(first, both)
    assert says in compared(both, first)
    assert compared(first, both, ("val_keys_sha256",)) == "" == compared(both, both)


def test_other_bands_are_refused(tmp_path: Path) -> None:
    heads = ("", "bands = [3, 2, 1]", "bands = [4, 3, 2]", "bands = [3, 2, 1]\nrange = [0, 4000]")
    sets = [write_set(tmp_path / f"{i}", TWO, head=head) for i, head in enumerate(heads)]
    for first in sets:
        for second in sets:
            refused = "was started on images of bands" in compared(first, second)
            assert refused == (first is not second)
    assert "bands [3, 2, 1] and range None, not [4, 3, 2] and None;" in compared(*sets[1:3])


@pytest.mark.parametrize("head", ["", 'name = "bridges"'])
@pytest.mark.parametrize("forget", [(), OLD])
def test_a_folder_that_moved_holds_the_same_data(
    tmp_path: Path, head: str, forget: tuple[str, ...]
) -> None:
    first = write_set(tmp_path / "first", TWO, head=head)
    theirs = described(first)
    theirs["data"] = {k: v for k, v in theirs["data"].items() if k not in forget}
    first.folder.rename(tmp_path / "moved")
    lines: list[str] = []
    check_same_data("run", theirs, described(Dataset.open(tmp_path / "moved")), lines.append)
    assert lines == [
        f"{tmp_path / 'moved'}: taken for the data that run was started on ({tmp_path / 'first'}), "
        "moved: name, classes and keys are the same"
    ]
