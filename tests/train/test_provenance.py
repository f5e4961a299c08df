"""What identifies the data of a run, and what a resume on other data is told."""

from pathlib import Path

import pytest
from msgspec import UNSET, structs
from test_data_check import mask_of, write_set

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.run import Run
from atrous.train.provenance import check_same_data, describe, describe_data
from atrous.train.recipe import Recipe


def described(dataset: Dataset, forget: tuple[str, ...] = ()) -> Run:
    """The run.json of a training on the set, without some of what identifies its data."""
    run = describe(Recipe(), dataset, str(dataset.folder), None, ())
    return structs.replace(run, data=structs.replace(run.data, **dict.fromkeys(forget, UNSET)))


def check(theirs: Run, dataset: Dataset) -> list[str]:
    """Return what is said of going on with a data set, if that is not refused."""
    lines: list[str] = []
    data = describe_data(dataset, str(dataset.folder), None)
    check_same_data(Path("run"), theirs, data, dataset.taxonomy.classes, lines.append)
    return lines


def compared(first: Dataset, second: Dataset, forget: tuple[str, ...] = ()) -> str:
    """The line that refuses to go on with `second`, or what is said besides."""
    try:
        return " ".join(check(described(first, forget), second))
    except InputError as error:
        return str(error)


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
    heads = ("", "bands = [3, 2, 1]", "bands = [2, 3, 1]", "bands = [3, 2, 1]\nrange = [0, 4000]")
    sets = [write_set(tmp_path / f"{i}", TWO, head=head) for i, head in enumerate(heads)]
    for first in sets:
        for second in sets:
            refused = "was started on images of bands" in compared(first, second)
            assert refused == (first is not second)
    says = "bands 3 2 1 and range none, not bands 2 3 1 and range none;"
    assert says in compared(*sets[1:3])


@pytest.mark.parametrize("head", ["", 'name = "bridges"'])
@pytest.mark.parametrize("forget", [(), OLD])
def test_a_folder_that_moved_holds_the_same_data(
    tmp_path: Path, head: str, forget: tuple[str, ...]
) -> None:
    first = write_set(tmp_path / "first", TWO, head=head)
    theirs = described(first, forget)
    first.folder.rename(tmp_path / "moved")
    assert check(theirs, Dataset.open(tmp_path / "moved")) == [
        f"{tmp_path / 'moved'}: taken for the data that run was started on ({tmp_path / 'first'}), "
        "moved: name, classes and keys are the same"
    ]


def test_a_run_without_its_data_is_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", TWO)
    assert compared(data, data, ("data",)) == (
        "run: its run.json does not say what it was trained on; take a copy of the run"
    )
