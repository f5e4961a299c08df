"""Label files with a value or a byte exchanged: read, or refused in one line."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutation import a_quarter
from strangers_labels import coco_table, labels_of, write_coco, write_labelme
from test_labelme_folders import bitmap, disc, outline, write_supervisely

from atrous.doctor import examine
from atrous.errors import InputError

ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 10**400),
    *("", "1", "\ud800", "a\0b", "b'x'", "../../etc/passwd", "%", "http://[::1", "\\", "/" * 50),
    *([], {}, [[]], [1, 2], [[1, 2], [3, 4], [5, 6]], {"a": 1}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON."""
    entries = {dict: lambda: value.items(), list: lambda: enumerate(value)}
    for key, below in entries.get(type(value), dict)():
        yield (*path, key)
        yield from places(below, (*path, key))


def mutated(content: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.3:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed[: rng.choice([len(changed), rng.randrange(len(changed))])])
    table = json.loads(content)
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice([*places(table)])
        holder = table
        for key in path:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(rng.choice(ODD))
        if not table:
            break
    return json.dumps(table).encode()


def write(folder: Path, kind: str) -> Path:
    """A healthy folder of a kind; the file that is to be changed."""
    if kind == "coco":
        write_coco(folder, coco_table())
        return folder / "all.json"
    if kind == "labelme":
        write_labelme(folder)
        return folder / "p1.json"
    shapes = [
        bitmap(disc(), 4, 25, "car"),
        outline([[9, 9], [30, 9], [30, 30]], "road", [[[15, 15], [20, 15], [20, 20]]]),
    ]
    write_supervisely(folder, lambda number: shapes)
    return folder / {"supervisely": "ds0/ann/p1.jpg.json", "meta": "meta.json"}[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coco", "labelme", "supervisely", "meta"])
@a_quarter
@given(seed=st.integers(0, 2**32))
def test_any_change_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    file = write(folder, kind)
    file.write_bytes(mutated(file.read_bytes(), seed))
    try:
        examine(folder).write()
        labels_of(folder)
    except InputError as error:
        assert "\n" not in str(error)
