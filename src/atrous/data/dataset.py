"""Dataset: reads a dataset.toml, yields Samples. docs/datasets.md describes the file."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.labels import lookup_table, to_train_ids
from atrous.files import InputError
from atrous.images import read_image, read_label
from atrous.taxonomy import IGNORE_INDEX, Taxonomy, distinct_colors


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    label: NDArray[np.uint8]
    """(H, W) train ids, 255 = ignored."""
    key: str


@dataclass(frozen=True)
class Split(Sequence[Sample]):
    """The samples of a split, in a fixed order; each is read when it is asked for."""

    folder: Path
    images: str
    """Pattern with {key}, from `folder`."""
    labels: str
    keys: tuple[str, ...]
    table: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Read sample `index`.

        Raises:
            InputError: a file is not what it should be, sizes differ, or an id is unknown.
        """
        key = self.keys[index]
        image_path, label_path = self.image_path(key), self.folder / self.labels.format(key=key)
        image = read_image(image_path)
        label = to_train_ids(read_label(label_path), self.table, label_path)
        if image.shape[:2] != label.shape:
            raise InputError(
                f"{label_path}: {label.shape[1]}x{label.shape[0]}, but its image "
                f"{image_path.name} is {image.shape[1]}x{image.shape[0]}; "
                "a mask must have its image's size"
            )
        return Sample(image, label, key)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image_path(self, key: str) -> Path:
        """Where the image of `key` lies."""
        return self.folder / self.images.format(key=key)


@dataclass(frozen=True)
class Dataset:
    """Labelled images on disk, as a dataset.toml describes them."""

    name: str
    licence: str
    source: str
    folder: Path
    taxonomy: Taxonomy
    table: NDArray[np.int16]
    splits: Mapping[str, Mapping[str, str]]

    @classmethod
    def open(cls, data: str | Path, root: Path | str | None = None) -> "Dataset":
        """Open a built-in set by its name, a folder that holds a dataset.toml, or a TOML file.

        Args:
            data: the name, folder or file.
            root: the folder that the paths count from; needed for a built-in set, for the others
                the folder of the TOML file if left out.

        Raises:
            InputError: there is no such set, or its description is wrong.
        """
        if str(data) in builtin_names() and not Path(data).exists():
            if root is None:
                raise InputError(f"{data}: where is it? Pass --root with the folder that holds it")
            text = (resources.files("atrous.data") / "sets" / f"{data}.toml").read_text("utf-8")
            return _parse(text, Path(str(data)), Path(root))
        path = Path(data)
        if path.is_dir():
            path = path / "dataset.toml"
        if not path.is_file():
            known = ", ".join(builtin_names())
            raise InputError(
                f"{path}: no such file. Describe the folder in one (docs/datasets.md has an "
                f"example to copy), or name a built-in set: {known}"
            )
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file; a dataset.toml is UTF-8 text") from None
        return _parse(text, path, Path(root) if root is not None else path.parent)

    def split(self, name: str) -> Split:
        """The samples of one split.

        Raises:
            InputError: there is no such split, it is empty, or an image has no mask.
        """
        if name not in self.splits:
            raise InputError(f"{self.name}: no split {name!r}; it has {', '.join(self.splits)}")
        table = self.splits[name]
        images, labels = table["images"], table["labels"]
        keys = (
            _listed_keys(self.folder / table["list"], images)
            if "list" in table
            else _matching_keys(self.folder, images)
        )
        if not keys:
            raise InputError(f"{self.folder / images}: no file matches, so split {name!r} is empty")
        for key in keys:
            for kind, pattern in (("image", images), ("mask", labels)):
                if not (path := self.folder / pattern.format(key=key)).is_file():
                    raise InputError(
                        f"{path}: no such file, so {key!r} of split {name!r} has no {kind}; "
                        "add the file or list the keys to use"
                    )
        return Split(self.folder, images, labels, keys, self.table)


def builtin_names() -> list[str]:
    """The sets that the package describes."""
    folder = resources.files("atrous.data") / "sets"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml"))


def _parse(text: str, path: Path, folder: Path) -> Dataset:
    try:
        table = tomllib.loads(text)
        labels = table["labels"]
        encoding = labels["encoding"]
        if encoding != "index":
            raise InputError(
                f"{path}: encoding {encoding!r} cannot be read yet; convert to 'index'"
            )
        name = str(table.get("name", folder.resolve().name))
        taxonomy = _taxonomy(name, labels["classes"])
        splits = table["splits"]
        for split, patterns in splits.items():
            for side in ("images", "labels"):
                if "{key}" not in patterns[side]:
                    raise InputError(f"{path}: splits.{split}.{side} has no {{key}} in it")
        return Dataset(
            name=name,
            licence=str(table.get("licence", "not stated")),
            source=str(table.get("source", "not stated")),
            folder=folder,
            taxonomy=taxonomy,
            table=_table(labels, taxonomy),
            splits=splits,
        )
    except InputError:
        raise
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; docs/datasets.md has an example") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: {error}; docs/datasets.md has an example") from None


def _taxonomy(name: str, classes: list[Any]) -> Taxonomy:
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in classes]
    defaults = distinct_colors(len(tables))
    return Taxonomy(
        name=name,
        classes=tuple(str(entry["name"]) for entry in tables),
        colors=tuple(
            _color(entry.get("color", default))
            for entry, default in zip(tables, defaults, strict=True)
        ),
        things=frozenset(i for i, entry in enumerate(tables) if entry.get("thing", False)),
    )


def _color(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _table(labels: Mapping[str, Any], taxonomy: Taxonomy) -> NDArray[np.int16]:
    identity = {str(i): i for i in range(taxonomy.num_classes)}
    train_ids = {int(key): int(value) for key, value in labels.get("map", identity).items()}
    for dataset_id, train_id in train_ids.items():
        if not (0 <= train_id < taxonomy.num_classes or train_id == IGNORE_INDEX):
            raise ValueError(f"labels.map sends {dataset_id} to {train_id}, which is no class")
    return lookup_table(train_ids, (int(i) for i in labels.get("ignore", [])))


def _pattern(images: str) -> re.Pattern[str]:
    """A pattern that finds {key} at the end of a path."""
    before, after = images.split("{key}", 1)
    return re.compile(f"(?:^|/){re.escape(before)}(?P<key>.+){re.escape(after)}$")


def _listed_keys(path: Path, images: str) -> tuple[str, ...]:
    """Keys from a list file: plain keys, or image paths from any root, in the first column."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, and dataset.toml names it as the list of a split")
    pattern = _pattern(images)
    keys = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if columns := line.split():
            match = pattern.search(columns[0])
            keys.append(match["key"] if match else columns[0])
    return tuple(keys)


def _matching_keys(folder: Path, images: str) -> tuple[str, ...]:
    pattern = _pattern(images)
    matches = (
        pattern.search(p.relative_to(folder).as_posix())
        for p in folder.glob(images.format(key="*"))
    )
    return tuple(sorted(match["key"] for match in matches if match))
