"""run.json that a stranger damaged: refused in one line, never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest

from atrous.errors import InputError
from atrous.run import load_run


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("in_channels", float("inf")),
        ("in_channels", True),
        ("in_channels", "3"),
        ("in_channels", 0),
        ("num_classes", 0),
        ("backbone", 5),
        ("aspp_channels", 10**30),
        ("name", ["deeplabv3plus"]),
    ],
)
def test_options_of_no_network(format1: Path, option: str, value: Any) -> None:
    path = format1 / "trained/finished/run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"model": run["model"] | {option: value}}))
    with pytest.raises(InputError, match="trained/finished") as caught:
        load_run(path.parent)
    assert "\n" not in str(caught.value)
