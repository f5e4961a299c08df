"""Dataset: reads a dataset.toml, yields Samples. docs/datasets.md describes the file."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from atrous.data.encodings.masks import Encoding
from atrous.data.sample import Sample
from atrous.data.schema import (
    builtin_names,
    builtin_text,
    check_split,
    check_top,
    one_line,
    read_bands,
    read_classes,
    read_encoding,
    read_table,
    read_tables,
    read_taxonomy,
    read_text,
)
from atrous.data.shards.read import Shards, open_shards
from atrous.data.split import Split, find_split
from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands
from atrous.images.pixels import fourth_is_alpha, may_be_tiff
from atrous.taxonomy import Taxonomy

__all__ = ["Dataset", "Sample", "Split", "builtin_names"]


@dataclass(frozen=True)
class Dataset:
    """Labelled images on disk, as a dataset.toml describes them."""

    name: str
    named: bool
    """Whether the file gives the name; otherwise it is the folder's."""
    licence: str
    source: str
    folder: Path
    taxonomy: Taxonomy
    encoding: Encoding
    splits: Mapping[str, Mapping[str, str]]
    """What the file says of each."""
    archives: tuple[Mapping[str, Any], ...] = ()
    """Where a built-in set can be downloaded, as the file says it."""
    bands: Bands = COLORS
    """How images are read, but for what a fourth band of TIFFs is."""
    alpha: bool | None = None
    """Whether that is transparency; None: as its values tell."""

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
            return _parse(builtin_text(str(data)), Path(str(data)), Path(root))
        path = Path(data)
        if path.is_dir():
            path = path / "dataset.toml"
        if not path.is_file():
            mend = f"`atrous data doctor {data} --write` makes one"
            if not Path(data).is_dir():
                mend = (
                    f"Give a folder, a dataset.toml or a built-in set: {', '.join(builtin_names())}"
                )
            raise InputError(f"{path}: no such file. {mend}")
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file; a dataset.toml is UTF-8 text") from None
        return _parse(text, path, Path(root) if root is not None else path.parent)

    def split(self, name: str) -> Split | Shards:
        """The samples of one split.

        Raises:
            InputError: there is no such split, it is empty, or an image has no mask.
        """
        if name not in self.splits:
            raise InputError(f"{self.name}: no split {name!r}; it has {', '.join(self.splits)}")
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder; --root is the one that holds the data"
            )
        table = self.splits[name]
        if "shards" in table:
            num_classes = self.taxonomy.num_classes
            return open_shards(self.folder, table["shards"], name, num_classes, self.reading)
        return replace(self._find(name), bands=self.reading)

    @property
    def reading(self) -> Bands:
        """How the images of all splits are read."""
        return replace(self.bands, alpha=self.fourth_band[0])

    @cached_property
    def fourth_band(self) -> tuple[bool, str]:
        """Whether a fourth band of TIFFs is transparency, and a line that says why, if it is."""
        if self.alpha is not None:
            return self.alpha, ""
        return fourth_is_alpha(self._tiffs())

    def _tiffs(self) -> Iterator[Path]:
        """The images of all splits whose files may be TIFFs, as far as they can be found."""
        for name, table in self.splits.items():
            if "shards" not in table and may_be_tiff(table["images"]):
                with suppress(InputError):  # told of where the split is asked for
                    split = self._find(name)
                    yield from map(split.image_path, split.keys)

    def _find(self, name: str) -> Split:
        return find_split(name, self.folder, self.splits[name], self.encoding, self.taxonomy.things)


def _parse(text: str, path: Path, folder: Path) -> Dataset:
    try:
        table = tomllib.loads(text)
        labels, splits = (read_table(field, table[field]) for field in ("labels", "splits"))
        check_top(table)
        bands, alpha = read_bands(table)
        name = read_text("name", table.get("name", folder.resolve().name or "data"))
        classes = read_classes(labels)
        taxonomy = read_taxonomy(name, classes)
        encoding = read_encoding(labels, classes)
        if not splits:
            raise ValueError("splits is empty")
        for split, patterns in splits.items():
            where = f"splits.{read_text('the name of a split', split)}"
            check_split(where, encoding.name, patterns)
        return Dataset(
            name=name,
            named="name" in table,
            licence=read_text("licence", table.get("licence") or "not stated"),
            source=read_text("source", table.get("source") or "not stated"),
            folder=folder,
            taxonomy=taxonomy,
            encoding=encoding,
            splits=splits,
            archives=tuple(read_tables("archives", table.get("archives", []))),
            bands=bands,
            alpha=alpha,
        )
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {one_line(error)}") from None
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; docs/datasets.md has an example") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; docs/datasets.md has an example") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; docs/datasets.md has an example") from None
