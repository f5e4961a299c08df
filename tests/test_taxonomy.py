import json

import pytest

from atrous.errors import InputError
from atrous.taxonomy import Taxonomy

STREET = Taxonomy(
    name="street",
    classes=("sky", "car"),
    colors=((70, 130, 180), (0, 0, 142)),
    things=frozenset({1}),
    groups=("nature", "traffic/vehicle"),
)


def test_dict_and_back() -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(STREET.to_dict()))) == STREET


def test_reads_bundles_from_before_there_were_groups() -> None:
    table = STREET.to_dict()
    del table["groups"]
    assert Taxonomy.from_dict(table).groups == ()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\x85", "\ud800"])
def test_refuses_names_that_are_no_text(name: str) -> None:
    table = {**STREET.to_dict(), "classes": ["sky", name]}
    with pytest.raises(InputError, match="holds a character that is no text"):
        Taxonomy.from_dict(table)


@pytest.mark.parametrize("name", ["straße", "می\u200cروم", "non\xa0breaking", "🚗"])
def test_takes_names_of_any_script(name: str) -> None:
    table = {**STREET.to_dict(), "classes": ["sky", name]}
    assert Taxonomy.from_dict(table).classes == ("sky", name)


def test_categories_are_as_in_panoptic_json() -> None:
    assert STREET.categories() == [
        {"id": 0, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
        {"id": 1, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    ]


@pytest.mark.parametrize("groups", [["nature"], 3, None])
def test_refuses_groups_that_do_not_fit(groups: object) -> None:
    with pytest.raises(InputError, match=r"taxonomy|groups"):
        Taxonomy.from_dict({**STREET.to_dict(), "groups": groups})
