"""Checks of the labels before a training."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.train.data_check import LabelCounts, checked_labels, count_labels, has_labels


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


def checked(
    dataset: Dataset, weights: tuple[float, ...] | str = ()
) -> tuple[LabelCounts, list[str]]:
    lines: list[str] = []

    def track(step: str) -> nullcontext:
        return nullcontext(lambda done, total: None)

    samples = dataset.split("train")
    return checked_labels(samples, dataset.taxonomy, weights, lines.append, track), lines


def test_counts_are_exact(tmp_path: Path) -> None:
    dataset = write_set(
        tmp_path, [mask_of(0, 0, 0, 1), mask_of(2, 0, 255, 255), mask_of(*[255] * 4)]
    )
    counts, lines = checked(dataset)
    assert counts == LabelCounts(masks=3, total=3, unlabelled=1, pixels=(4, 1, 1), ignored=6,
                                 labelled=(6, 4, 2))  # fmt: skip
    assert lines == [
        "labels of 3 training masks: bg 66.7 %, crack 16.7 %, rust 16.7 %, and ignored 50.0 %",
        "warning: 1 of 3 training masks are ignored whole and teach nothing; "
        "check labels.map and labels.ignore in dataset.toml",
    ]


def test_weights_are_median_frequency_balancing(tmp_path: Path) -> None:
    masks = [mask_of(0, 0, 0, 1), mask_of(2, 0, 255, 255), mask_of(*[255] * 4)]
    classes = ("bg", "crack", "rust", "none")
    counts, _ = checked(write_set(tmp_path, masks, classes), "auto")
    # shares of the masks that hold the class: 4 of 6, 1 of 4, 1 of 2; the median is 1/2
    assert counts.weights() == pytest.approx((0.75, 2, 1, 1))
    assert counts.rarity() == pytest.approx((1.5, 6, 6, 0))


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
    _, lines = checked(write_set(tmp_path, [mask_of(0, 0, 0, 2)], ("bg", "crack", "rust", "hole")))
    assert "no training mask holds crack, hole, so they are never learned" in lines[1]


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
