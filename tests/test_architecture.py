"""docs/architecture.md names what is there."""

import ast
import re
from pathlib import Path

import pytest

import atrous

HOUSE = Path(atrous.__file__).parent
TEXT = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")
FLOWS = TEXT[TEXT.index("## Four flows") : TEXT.index("## How to add")]
ADDING = TEXT[TEXT.index("## How to add") :]

FUNCTIONS = sorted(set(re.findall(r"\b([a-z_0-9]+(?:/[a-z_0-9]+)+)\.([A-Za-z]\w*)", FLOWS)))
PLACES = sorted(set(re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]*(?:\.[a-z]+)?)`", ADDING)))


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_functions_of_the_flows(module: str, name: str) -> None:
    tree = ast.parse((HOUSE / f"{module}.py").read_text("utf-8"))
    assert name in {getattr(node, "name", None) for node in tree.body}


@pytest.mark.parametrize("place", PLACES)
def test_places_where_things_are_added(place: str) -> None:
    assert (HOUSE / place).exists() or (HOUSE.parents[1] / place).exists()


def test_the_document_names_both() -> None:
    assert len(FUNCTIONS) > 15 and len(PLACES) > 15
