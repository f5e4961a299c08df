"""Dataset: reads a dataset.toml, yields Samples. docs/datasets.md describes the file."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from atrous.data.encodings.masks import Encoding
from atrous.data.sample import Sample
from atrous.data.schema import Description, SplitFiles, builtin, builtin_names, parse
from atrous.data.search import find_split
from atrous.data.shards.read import Shards, open_shards
from atrous.data.split import Split
from atrous.data.train_ids import encoding_of, taxonomy_of
from atrous.errors import InputError, named
from atrous.files import read_text
from atrous.images.bands import Bands
from atrous.images.pixels import fourth_is_alpha, may_be_tiff
from atrous.taxonomy import Taxonomy

__all__ = ["Dataset", "Sample", "Split", "builtin_names"]


@dataclass(frozen=True)
class Dataset:
    """Labelled images on disk, as a dataset.toml describes them."""

    description: Description
    """What the file says."""
    name: str
    """The description's; where it has none, the folder's."""
    folder: Path
    """Paths of the description count from it."""
    taxonomy: Taxonomy
    encoding: Encoding

    @classmethod
    def open(cls, data: str | Path, root: Path | str | None = None) -> "Dataset":
        """Open a built-in set by its name, a folder that holds a dataset.toml, or a TOML file.

        Args:
            data: the name, folder or file.
            root: the folder that the paths count from; needed for a built-in set, for the others
                the folder of the TOML file if left out.
        """
        if str(data) in builtin_names() and not Path(data).exists():
            if root is None:
                raise InputError(f"{data}: where is it? Pass --root with the folder that holds it")
            return cls.of(builtin(str(data)), root, data)
        path = Path(data)
        if path.is_dir():
            path = path / "dataset.toml"
        if not path.is_file():
            known = ", ".join(builtin_names())
            fix = f"Give a folder, a dataset.toml or a built-in set: {known}"
            if Path(data).is_dir():
                fix = f"`atrous data doctor {data} --write` makes one"
            raise InputError(f"{path}: no such file. {fix}")
        return cls.of(parse(read_text(path), path), path.parent if root is None else root, path)

    @classmethod
    def of(cls, description: Description, folder: Path | str, path: Path | str) -> "Dataset":
        """Return the data set of a description, whose errors begin with `path`."""
        folder = Path(folder)
        name = description.name or folder.resolve().name or "data"
        with named(path, "docs/datasets.md has an example"):
            taxonomy = taxonomy_of(description.labels, name)
            encoding = encoding_of(description.labels)
        return cls(description, name, folder, taxonomy, encoding)

    @property
    def licence(self) -> str:
        """The description's, or "not stated"."""
        return self.description.licence or "not stated"

    @property
    def source(self) -> str:
        """The description's, or "not stated"."""
        return self.description.source or "not stated"

    @property
    def splits(self) -> Mapping[str, SplitFiles]:
        """Where the files of each split lie."""
        return self.description.splits

    def split(self, name: str, *, masks: bool = True) -> Split | Shards:
        """Return the samples of one split; an image without a mask is an error.

        Args:
            name: of the split.
            masks: False also takes a split of images alone, whose pixels are all ignored.
        """
        if name not in self.splits:
            raise InputError(f"{self.name}: no split {name!r}; it has {', '.join(self.splits)}")
        if masks and not self.splits[name].has_masks:
            raise InputError(
                f"{self.name}: split {name!r} has no masks: labels is missing in splits.{name}; "
                f"add it, or use the images by atrous train --teacher RUN --unlabelled {name}"
            )
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder; --root is the one that holds the data"
            )
        bands = self.bands  # this may have searched the split
        if shards := self.splits[name].shards:
            return open_shards(self.folder, shards, name, self.taxonomy.num_classes, bands)
        found = self._searched.pop(name, None)
        return replace(found or self._search(name), bands=bands)

    @property
    def bands(self) -> Bands:
        """How the images of all splits are read."""
        return replace(self.description.reading(), alpha=self.fourth_band[0])

    @cached_property
    def fourth_band(self) -> tuple[bool, str]:
        """Whether a fourth band of TIFFs is transparency, and a line that says why, if it is."""
        if self.description.alpha is not None:
            return self.description.alpha, ""
        return fourth_is_alpha(self._tiffs())

    def _tiffs(self) -> Iterator[Path]:
        """Yield the images of all splits whose files may be TIFFs, as far as they are found."""
        for name, files in self.splits.items():
            if files.images and may_be_tiff(files.images):
                with suppress(InputError):  # raised again where the split is asked for
                    split = self._searched[name] = self._search(name)
                    yield from map(split.image_path, split.keys)

    def _search(self, name: str) -> Split:
        things = self.taxonomy.things
        return find_split(name, self.folder, self.splits[name], self.encoding, things)

    @cached_property
    def _searched(self) -> dict[str, Split]:
        """Splits that were searched for their TIFFs and not yet asked for."""
        return {}
