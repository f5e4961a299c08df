import json

import pytest

from atrous.cli import main


def test_the_list_names_every_set_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "camvid                 11 classes  train, val, test" in lines
    assert max(map(len, lines)) <= 80
    assert main(["data", "list", "--json"]) == 0
    sets = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert sets["cocostuff"]["classes"][170] == "wood"
    assert all(f"{name} " in " ".join(lines) for name in sets)
