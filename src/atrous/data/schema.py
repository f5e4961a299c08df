"""What a dataset.toml says: one description of labels, splits, images and archives.

`parse` reads a description and `to_toml` writes it. docs/datasets.md describes the file.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from atrous.data.encodings.masks import IDS
from atrous.data.fetch.archives import Archive
from atrous.data.lists import is_listable
from atrous.decode import convert
from atrous.errors import InputError, named
from atrous.images.bands import Bands
from atrous.images.label_maps import TRANSPARENT
from atrous.text import did_you_mean, one_line

__all__ = [
    "ClassEntry",
    "Description",
    "Labels",
    "Manual",
    "SplitFiles",
    "builtin",
    "builtin_names",
    "parse",
    "to_toml",
]

EncodingName = Literal[
    "index", "palette", "rgb", "mat", "coco-json", "coco-panoptic", "polygons", "binary-masks"
]
Color = str | tuple[int, ...]
"""As "#rrggbb", or (r, g, b) with values from 0 to 255."""
Id = int | Color
"""A class in a mask: a number, a name, or a colour."""
_Path = Annotated[str, Meta(min_length=1, max_length=255)]

BY_NAME = ("polygons", "binary-masks")
"""Encodings that know classes by their names."""
PICTURES = ("index", "palette", "mat", "rgb")
"""Encodings whose masks hold a value, or a colour, for each pixel."""
_ENCODINGS_WITH = {
    "divisor": ("index",),
    "variable": ("mat",),
    "background": ("coco-json", "polygons", "binary-masks"),
    "foreground": ("binary-masks",),
}
"""Fields of [labels] that only some encodings have."""
_SPLIT_FIELDS = {
    "coco-json": {"images", "annotations"},
    "coco-panoptic": {"images", "labels", "annotations"},
}
"""Fields that a split needs, if they are not images and labels."""
_SETS = resources.files("atrous.data") / "sets"
_LONGEST_TEXT = 1000
_FIX = "docs/datasets.md has an example"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of a dataset.toml."""


class ClassEntry(_Table, frozen=True, kw_only=True):
    """One class, as `classes` lists it."""

    name: str
    color: Color | None = None
    thing: bool = False
    """Whether its objects can be counted."""
    group: str | None = None
    """Where the class hangs in a tree of classes, root first: "stuff/indoor/textile"."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", _text("the name of a class", self.name))
        if self.color is not None:
            color_code(self.color)
        if self.group is not None:
            _text("the group of a class", self.group)


class Labels(_Table, frozen=True, kw_only=True):
    """How masks are stored, and what their ids mean."""

    encoding: EncodingName
    ignore: int | str | tuple[Id, ...] = ()
    """Ids that no loss and no score counts; -1 stands for all negative ones."""
    unknown: Literal["error", "ignore", "nearest"] = "error"
    """Treatment of an id that is neither a class nor ignored."""
    divisor: Annotated[int, Meta(ge=2, le=IDS)] | None = None
    """Ids from it on are category * divisor + instance."""
    variable: str = "S"
    """Name of the label map in a MATLAB file."""
    background: str | None = None
    """Name of the class of the pixels that no outline and no mask covers; None: ignored."""
    foreground: Annotated[int, Meta(ge=1, lt=IDS)] = 1
    """The least value of a binary mask that belongs to its class."""
    map: dict[str, int] | UnsetType = UNSET
    """Train ids of dataset ids, names or colours; 255: ignored."""
    classes: str | tuple[str | ClassEntry, ...]
    """In the order of train ids; or the name of a built-in set."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(Labels):
            encodings = _ENCODINGS_WITH.get(field.name, (self.encoding,))
            if self.encoding not in encodings and getattr(self, field.name) != field.default:
                there = " or ".join(encodings)
                raise ValueError(f"{field.name} goes with {there}, not with {self.encoding}")
        if self.unknown == "nearest" and self.encoding not in PICTURES:
            raise ValueError(f"unknown = 'nearest' goes with {', '.join(PICTURES)}")
        _text("variable", self.variable)

    def entries(self) -> tuple[ClassEntry, ...]:
        """Return the classes in full, those of a built-in set as well."""
        if isinstance(self.classes, str):
            return builtin(self.classes).labels.entries()
        return tuple(
            ClassEntry(name=entry) if isinstance(entry, str) else entry for entry in self.classes
        )

    def ignored(self) -> tuple[Id, ...]:
        """Return the ids to ignore, a single one as well."""
        return self.ignore if isinstance(self.ignore, tuple) else (self.ignore,)


class SplitFiles(_Table, frozen=True, kw_only=True):
    """Where the files of a split lie, from the folder of the data set; "" where it has none."""

    images: _Path = ""
    """Pattern with {key}."""
    labels: _Path = ""
    """Pattern with {key}, and with {class} of binary masks; left out: images without masks."""
    annotations: _Path = ""
    """The JSON that describes all labels."""
    list_file: _Path = msgspec.field(default="", name="list")
    """Names the samples; without it, all images that match belong to the split."""
    valid: _Path = ""
    """Pattern with {key} of masks whose 0 marks pixels to ignore."""
    shards: _Path = ""
    """Pattern of tar files, in place of all others."""

    def __post_init__(self) -> None:
        said = msgspec.to_builtins(self)
        if "shards" in said and len(said) > 1:
            raise ValueError(f"shards stand alone, without {', '.join(said.keys() - {'shards'})}")
        for field, path in said.items():
            if not is_listable(path):
                raise ValueError(f"{field} is {short(path)}, where a path was expected")
        for field in said.keys() & {"images", "labels", "valid"}:
            if "{key}" not in said[field]:
                raise ValueError(f"{field} has no {{key}} in it")
        if self.images.count("{key}") > 1:
            raise ValueError("images has {key} in it more than once")

    @property
    def has_masks(self) -> bool:
        """Whether more is given than the images and perhaps their list."""
        return set(msgspec.to_builtins(self)) - {"list"} != {"images"}

    def check(self, encoding: EncodingName) -> None:
        """Refuse, by a ValueError, a split that lacks what labels in `encoding` need."""
        if self.shards or not self.has_masks:
            return
        needed = _SPLIT_FIELDS.get(encoding, {"images", "labels"})
        for field in ("images", "labels", "annotations"):
            if bool(getattr(self, field)) != (field in needed):
                fault = "is missing" if field in needed else f"goes with no {encoding}"
                raise ValueError(f"{field} {fault}")
        if encoding == "binary-masks" and "{class}" not in self.labels:
            raise ValueError("labels has no {class} in it")


class Manual(_Table, frozen=True, kw_only=True):
    """How to assemble a set that cannot be fetched."""

    page: str
    text: str


class Description(_Table, frozen=True, kw_only=True):
    """What a dataset.toml says; its name, licence and source are "" where it does not say."""

    name: str = ""
    licence: str = ""
    source: str = ""
    bands: Annotated[tuple[int, ...], Meta(min_length=1)] = ()
    """From 1, one for each channel of the network; none: the colours of the files."""
    range: tuple[float, float] | None = None
    """The values that are black and white."""
    alpha: bool | None = None
    """Whether a fourth band of TIFFs is transparency; None: its values decide."""
    labels: Labels
    splits: Annotated[dict[str, SplitFiles], Meta(min_length=1)]
    manual: Manual | None = None
    archives: tuple[Archive, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "licence", "source"):
            if value := getattr(self, field):
                msgspec.structs.force_setattr(self, field, _text(field, value))
        self.reading()

    def reading(self) -> Bands:
        """Return how images are read; `Dataset.bands` decides on a fourth band of TIFFs."""
        return Bands(self.bands, self.range)


def parse(text: str, path: Path | str) -> Description:
    """Read the text of a dataset.toml, whose errors begin with `path`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {one_line(error)}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; {_FIX}") from None
    if isinstance(splits := table.get("splits"), dict):
        for name, files in splits.items():  # each by itself, so that an error names it
            if not name or not name.isprintable():
                raise InputError(f"{path}: splits: the name of a split is {short(name)}; {_FIX}")
            splits[name] = convert(files, SplitFiles, f"{path}: splits.{name}", _FIX)
    description = convert(table, Description, path, _FIX)
    for name, files in description.splits.items():
        with named(f"{path}: splits.{name}", _FIX):
            files.check(description.labels.encoding)
    return description


def to_toml(description: Description) -> str:
    """Write a description: fields in a fixed order, only those that differ from the default."""
    table = msgspec.to_builtins(description)
    tables = [("[labels]", table.pop("labels"))]
    tables += [(f"[splits.{_key(name)}]", files) for name, files in table.pop("splits").items()]
    if "manual" in table:
        tables.append(("[manual]", table.pop("manual")))
    tables += [("[[archives]]", archive) for archive in table.pop("archives", ())]
    lines = _assignments(table)
    for title, fields in tables:
        lines += [*([""] if lines else []), title, *_assignments(fields)]
    return "\n".join(lines) + "\n"


def _assignments(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(field)} = {_value(value)}" for field, value in table.items()]


def _value(value: Any) -> str:
    """Write a value as TOML, on one line; only a list of tables has a line for each."""
    if isinstance(value, dict):
        return f"{{ {', '.join(_assignments(value))} }}"
    if isinstance(value, tuple | list) and any(isinstance(entry, dict) for entry in value):
        return "[\n" + "".join(f"  {_value(entry)},\n" for entry in value) + "]"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    # Strings and booleans as in JSON; but TOML has DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _value(name)


def builtin_names() -> list[str]:
    """Return the names of the sets that the package describes."""
    return sorted(file.name[:-5] for file in _SETS.iterdir() if file.name.endswith(".toml"))


def builtin(name: str) -> Description:
    """Return the description of a built-in set, or refuse the name by a ValueError."""
    if name not in builtin_names():
        raise ValueError(f"{short(name)} is no built-in set. {did_you_mean(name, builtin_names())}")
    return parse((_SETS / f"{name}.toml").read_text("utf-8"), name)


def rgb(color: Id) -> tuple[int, int, int]:
    """Read "#rrggbb" or (r, g, b)."""
    if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color):
        color = tuple(bytes.fromhex(color[1:]))
    match color:
        case (red, green, blue) if {red, green, blue} <= {*range(256)}:
            return red, green, blue
    raise ValueError(f'{short(color)} is no colour; write "#rrggbb" or [r, g, b], 0 to 255 each')


def color_code(color: Id) -> int:
    """Return the 24-bit code of a colour, or `TRANSPARENT`.

    >>> color_code("#ff0000"), color_code((0, 1, 0))
    (255, 256)
    """
    if color == "transparent":
        return TRANSPARENT
    red, green, blue = rgb(color)
    return red + 256 * green + 65536 * blue


def _text(what: str, value: str) -> str:
    """Return a text on one line; refuse, by a ValueError, what would disturb a terminal."""
    line = one_line(value)
    if not line.isprintable() or not 0 < len(line) <= _LONGEST_TEXT:
        raise ValueError(f"{what} is {short(value)}, where printable text was expected")
    return line
