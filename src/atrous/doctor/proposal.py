"""A dataset.toml for a folder that has none, and the lists of its splits."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.encodings.masks import color_name
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.doctor.labels.spec import LabelSpec, code_of
from atrous.doctor.layout.files import Files
from atrous.errors import InputError
from atrous.files import replacing

VAL_SHARE = 0.2
"""Of a training set without a validation set, what is proposed as one."""

_SEEDS = 32


def describe(
    folder: Path, scheme: LabelSpec, splits: Mapping[str, Files], remarks: Sequence[str] = ()
) -> str:
    """The text of a dataset.toml; each split is read from the list `dataset.SPLIT.txt`.

    Args:
        folder: its name becomes the name of the dataset.
        scheme: becomes [labels].
        splits: the patterns of each; its keys are not written here.
        remarks: lines of comment at the top.
    """
    lines = [f"# {_one_line(remark)}" for remark in remarks]
    name = "".join(letter for letter in folder.resolve().name if letter.isprintable())
    lines += [f"name = {_text(name or 'data')}", 'licence = "not stated"']
    lines += ['source = "not stated"', *_bands(splits), "", *_labels(scheme)]
    for split, files in splits.items():
        lines += ["", f"[splits.{split}]", f"images = {_text(files.images)}"]
        lines += [f"labels = {_text(files.labels)}"] if files.labels else []
        lines += [f"annotations = {_text(files.annotations)}"] if files.annotations else []
        lines += [f"valid = {_text(files.valid)}"] if files.valid else []
        lines += [f'list = "{list_name(split)}"']
    return "\n".join(lines) + "\n"


def _bands(splits: Mapping[str, Files]) -> list[str]:
    """How images are read: in all splits alike."""
    return next((files.bands.toml_lines() for files in splits.values()), [])


def list_name(split: str) -> str:
    """The name of the list file of a split."""
    return f"dataset.{split}.txt"


def write_lists(folder: Path, splits: Mapping[str, Files]) -> list[Path]:
    """Write the images of each split, one path a line, and return the files."""
    written = []
    for split, files in splits.items():
        with replacing(folder / list_name(split)) as path:
            path.write_text("".join(f"{files.image(key)}\n" for key in files.keys), "utf-8")
        written.append(folder / list_name(split))
    return written


def open_unwritten(
    folder: Path, scheme: LabelSpec, splits: Mapping[str, Files]
) -> dict[str, Split | Shards]:
    """Open the splits of a folder as its dataset.toml would describe them, without writing it."""
    with tempfile.TemporaryDirectory() as place:
        write_lists(Path(place), splits)
        text = describe(folder, scheme, splits)
        # A path that is absolute stays as it is where the reader joins it to the folder.
        text = re.sub(r'^list = "', f'list = "{Path(place).as_posix()}/', text, flags=re.M)
        (Path(place) / "dataset.toml").write_text(text, "utf-8")
        dataset = Dataset.open(place, root=folder)
        return {split: dataset.split(split) for split in splits}


def write(folder: Path, text: str, splits: Mapping[str, Files]) -> list[Path]:
    """Write the dataset.toml `text` and the lists of its splits; return the files."""
    refuse_to_overwrite(folder)
    target = folder / "dataset.toml"
    try:
        lists = write_lists(folder, splits)
        with replacing(target) as path:
            path.write_text(text, "utf-8")
    except OSError as error:
        with suppress(OSError):
            for file in (folder / list_name(split) for split in splits):
                file.unlink(missing_ok=True)
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return [target, *lists]


def refuse_to_overwrite(folder: Path) -> None:
    """Refuse where there is a dataset.toml."""
    if (folder / "dataset.toml").exists():
        raise InputError(f"{folder}/dataset.toml: is there already; remove it to have another")


def divide(keys: Sequence[str], present: NDArray[np.bool_]) -> tuple[list[str], list[str], int]:
    """Divide a set into training and validation: the seed that parts the classes best.

    Args:
        keys: of the samples, N.
        present: (N, K), whether a class occurs in a sample.

    Returns:
        The keys to train on, those to validate on, and the seed.
    """
    count = max(1, round(VAL_SHARE * len(keys))) if len(keys) > 1 else 0

    def chosen(seed: int) -> NDArray[np.intp]:
        return np.sort(np.random.default_rng(seed).permutation(len(keys))[:count])

    def missing(seed: int) -> int:
        in_val = np.isin(np.arange(len(keys)), chosen(seed))
        return int((~present[in_val].any(0)).sum() + (~present[~in_val].any(0)).sum())

    seed = min(range(_SEEDS), key=missing)
    val = set(chosen(seed).tolist())
    sides = [[key for i, key in enumerate(keys) if (i in val) == side] for side in (False, True)]
    return sides[0], sides[1], seed


def _labels(scheme: LabelSpec) -> list[str]:
    by_color = scheme.encoding == "rgb"
    lines = ["[labels]", f"encoding = {_text(scheme.encoding)}"]
    lines += [
        f"{field} = {json.dumps(value, ensure_ascii=False)}"
        for field, value in scheme.extra.items()
    ]
    if scheme.ignore:
        ignored = [_text(color_name(i)) if by_color else str(i) for i in scheme.ignore]
        lines.append(f"ignore = [{', '.join(ignored)}]")
    if scheme.unknown != "error":
        lines.append(f"unknown = {_text(scheme.unknown)}")
    if scheme.background:
        lines.append(f"background = {_text(scheme.background)}")
    entries = {_text(name): place for name, place in scheme.names.items()}
    if by_color:  # but for the colours of the classes
        codes = {code_of(color): place for place, color in enumerate(scheme.colors)}
        further = scheme.train_ids.items() - codes.items()
        entries |= {_text(color_name(code)): place for code, place in sorted(further)}
    elif scheme.train_ids != {i: i for i in range(len(scheme.classes))}:
        entries = {str(i): place for i, place in scheme.train_ids.items()} | entries
    if entries:
        lines.append(f"map = {{ {', '.join(f'{i} = {p}' for i, p in entries.items())} }}")
    lines.append("classes = [")
    for place, (name, color) in enumerate(zip(scheme.classes, scheme.colors, strict=True)):
        thing = ", thing = true" if place in scheme.things else ""
        lines.append(f"  {{ name = {_text(name)}, color = {list(color)}{thing} }},")
    return [*lines, "]"]


def _text(value: Any) -> str:
    """A TOML string: JSON's escapes are among TOML's."""
    return json.dumps(str(value), ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
