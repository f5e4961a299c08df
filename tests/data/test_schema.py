"""Descriptions: what is parsed, and what is written of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.data.fetch.archives import Archive
from atrous.data.schema import (
    ClassEntry,
    Description,
    Labels,
    Manual,
    SplitFiles,
    builtin,
    builtin_names,
    parse,
    to_toml,
)

FORMAT_1 = Path(__file__).parents[1] / "format1"
FILES = sorted(FORMAT_1.rglob("dataset.toml"))


def test_there_are_descriptions_of_format_1() -> None:
    assert len(FILES) > 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_is_written_is_read_back(path: Path) -> None:
    description = parse(path.read_text("utf-8"), path)
    assert parse(to_toml(description), path) == description


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_sets_are_read_back(name: str) -> None:
    assert parse(to_toml(builtin(name)), name) == builtin(name)


def test_only_what_differs_from_the_default_is_written() -> None:
    description = Description(
        name="x",
        bands=(4, 1),
        range=(0, 10000),
        labels=Labels(
            encoding="rgb",
            ignore=("#000000", (1, 2, 3)),
            map={"#8000ff": 1, "1 2": 255},
            classes=(ClassEntry(name='"a"', color=(1, 2, 3)), ClassEntry(name="b", thing=True)),
        ),
        splits={"train": SplitFiles(images="{key}.jpg", labels="{key}.png", list_file="a.txt")},
        manual=Manual(page="https://example.org", text="ask"),
        archives=(Archive(url="http://x/a.zip", only={"train": ("*",)}),),
    )
    assert (
        to_toml(description)
        == """\
name = "x"
bands = [4, 1]
range = [0, 10000]

[labels]
encoding = "rgb"
ignore = ["#000000", [1, 2, 3]]
map = { "#8000ff" = 1, "1 2" = 255 }
classes = [
  { name = "\\"a\\"", color = [1, 2, 3] },
  { name = "b", thing = true },
]

[splits.train]
images = "{key}.jpg"
labels = "{key}.png"
list = "a.txt"

[manual]
page = "https://example.org"
text = "ask"

[[archives]]
url = "http://x/a.zip"
only = { train = ["*"] }
"""
    )
    assert parse(to_toml(description), "x.toml") == description


@given(st.text(min_size=1).map(lambda text: " ".join(text.split())).filter(str.isprintable))
def test_any_name_is_read_back(name: str) -> None:
    labels = Labels(encoding="polygons", classes=("a",), map={name: 0, "\x7f": 0}, ignore=(name,))
    files = SplitFiles(images="{key}.jpg", labels="{key}.json")
    description = Description(licence=name, labels=labels, splits={"train": files})
    assert parse(to_toml(description), "x.toml") == description
