"""Read list files: the keys that a text file names, whatever program wrote it.

An entry is a key, the image's or the mask's path from any root, or its file name, alone on its line
or in a column of it. "my photo.jpg 1" may be a name with spaces, or a name and a second column, so
entries are compared with the keys that exist.
"""

import csv
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from os.path import isdir
from pathlib import Path
from urllib.parse import unquote

from atrous.data.patterns import alternatives
from atrous.errors import InputError
from atrous.files import is_file, no_such_file, read_text
from atrous.images.photos import IMAGE_SUFFIXES

SPLIT_FOLDER = re.compile(
    r"(?<![a-z])(train(?:[_-]?val|ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?=annot|label|mask|im|seg|[^a-z]|$)"
)
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("trainval", "train_val", "train-val"), "trainval"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_MOST_BYTES = 1 << 28
_MOST_LETTERS = 4096
"""The letters of a line that are read; no path is longer."""
_MOST_SPACES = 16
"""A line with more spaces is no name; at most its first word is one."""
_JOINERS = "\u200c\u200d"
_SUFFIXES = (*IMAGE_SUFFIXES, ".mat", ".json", ".txt", ".xml")
_INNER_SUFFIX = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(_SUFFIXES, key=len, reverse=True)))})[\"']?[\s,;]", re.I
)
_HEADER = re.compile(
    r"(?:image|img|photo|picture|input|frame|file)?(?:file)?(?:name|path|id|url)?s?"
)
_ROOT = re.compile(r"(?:[a-z][a-z0-9+.-]+:)?//[^/]*", re.I)


@dataclass(frozen=True)
class Named:
    """The keys that a list names."""

    keys: dict[str, str]
    """Keys with the entry that names each, in the order of the list."""
    missing: list[str]
    """Entries that name no key."""
    crossed: dict[str, str]
    """Keys of images whose entry has the mask of another image in another column."""


@dataclass(frozen=True)
class Place:
    """The files that entries may name."""

    folder: Path
    images: str
    """Pattern, from the folder."""
    labels: str
    """Pattern, from the folder; "" where masks are no files."""
    has: Callable[[str], bool]
    """Returns whether a key exists."""
    keys: Callable[[], Iterable[str]]
    """Returns all keys; called only where an entry is no key as it is written."""
    any_folder: bool = False
    """Whether the last folder of an entry may be another than that of the files."""

    def named(self, lines: Iterable[str]) -> Named:
        """Return the keys that the lines of a list name.

        A line is split into columns if no line as a whole names a key, if its first column is a
        file name, or if a second column names the same key. If no entry has the folders of the set,
        the set was renamed, and file names alone count.
        """
        lines = list(lines)
        named = self._named(lines)
        if named.keys or self.any_folder:
            return named
        return replace(self, any_folder=True)._named(lines)

    def _named(self, lines: Sequence[str]) -> Named:
        whole = [self.key(line) for line in lines]
        has_columns = not any(whole)
        found, missing, crossed = dict[str, str](), list[str](), dict[str, str]()
        column = _header(lines[0]) if lines and whole[0] is None else None
        for line, key in list(zip(lines, whole, strict=True))[column is not None :]:
            fields: Sequence[str] = ()
            if key is None:
                key, fields = self._in_columns(line, column, sure=has_columns)
            if key is None:
                if not line.lstrip().startswith("#"):  # a comment
                    missing.append(line)
            elif any(self._exact(field, self.labels) not in (None, key) for field in fields):
                crossed.setdefault(key, line)
            else:
                found.setdefault(key, line)
        return Named(found, missing, crossed)

    def key(self, entry: str) -> str | None:
        """Return the key that an entry of one column names, if it is a single one."""
        texts = _variants(entry[:_MOST_LETTERS])
        exact = (self._exact(text, self.images) for text in texts)
        keys = (text for text in texts if self._is_key(text))
        near = (self._near(text) for text in texts)
        return next(
            (key for found in (exact, keys, near) for key in found if key is not None), None
        )

    def _in_columns(
        self, line: str, column: int | None, *, sure: bool
    ) -> tuple[str | None, Sequence[str]]:
        """Return the key that one of a line's columns names, and the other columns."""
        for fields in _splittings(line[:_MOST_LETTERS]):
            places = range(len(fields)) if column is None else range(column, len(fields))[:1]
            for place in sorted(places, key=lambda place: not _is_file_name(fields[place])):
                others = [*fields[:place], *fields[place + 1 :]]
                if (key := self.key(fields[place])) is None:
                    continue
                is_first = place == 0 and _is_file_name(fields[0])
                if sure or is_first or any(self.key(other) == key for other in others):
                    return key, others
        return None, ()

    def _exact(self, text: str, pattern: str) -> str | None:
        """Return the key of the file whose path, from any root, is `text`."""
        keys = (key for one in alternatives(pattern) for key in _candidates(text, one))
        return next((key for key in keys if self._is_key(key) and self._fits(text, key)), None)

    def _is_key(self, text: str) -> bool:
        return not {"", "."} & {*text.split("/")} and self.has(text)

    def _near(self, text: str) -> str | None:
        """Return the one key whose path ends as `text`; case, accents and suffix may differ."""
        if _INNER_SUFFIX.search(text):
            return None
        written = _parts(_normal(text))
        for parts in (written, [part.casefold() for part in written]):
            for start in range(len(parts)):
                if (end := "/".join(parts[start:])) in self._ends:
                    dropped = "/".join([*parts[:start], ""])
                    if (key := self._ends[end]) is None or not self._fits(text, key):
                        break
                    is_path = not re.search(r"[\t,;]| /", dropped)
                    in_folder = start in (0, *range(len(parts) - 1)) or not self._folders(key)[0]
                    return key if is_path and (in_folder or self.any_folder) else None
        return None

    @cached_property
    def _ends(self) -> dict[str, str | None]:
        """The key of each ending of a path; None where several keys share the ending."""
        ends: dict[str, str | None] = {}
        folded: dict[str, str | None] = {}
        for key in self.keys():
            for path in (unicodedata.normalize("NFC", key), *map(_normal, self._paths(key))):
                parts = _parts(path)
                for start in range(len(parts)):
                    end = "/".join(parts[start:])
                    ends[end] = key if ends.setdefault(end, key) == key else None
                    end = end.casefold()
                    folded[end] = key if folded.setdefault(end, key) == key else None
        return folded | ends

    def _paths(self, key: str) -> list[str]:
        patterns = [alternatives(pattern)[0] for pattern in (self.images, self.labels)]
        return [pattern.replace("{key}", key) for pattern in patterns if "{key}" in pattern]

    def _fits(self, text: str, key: str) -> bool:
        """Return whether the folders in `text` can be those of the files of `key`.

        They cannot if they name another split, or exist here as other folders.
        """
        parts, written = _parts(text), _parts(_normal(text))
        ends = (_parts(_normal(path)) for path in self._paths(key))
        if parts == _parts(key) or any(end[-len(written) :] == written for end in ends):
            return True
        folders = self._folders(key)
        splits = {split_of(folder) for folder in folders}
        if split_of("/".join(parts[:-1])) not in {"", *splits} and splits != {""}:
            return False
        parents = ("/".join(parts[start:-1]) for start in range(len(parts) - 1))
        parent = next((p for p in parents if self._is_folder(p)), None)
        return parent is None or any(
            f"{folder}/".startswith(f"{parent}/")
            or (self._is_folder(folder) and (self.folder / parent).samefile(self.folder / folder))
            for folder in folders
        )

    def _folders(self, key: str) -> list[str]:
        """Return the folders of the image and the mask of `key`."""
        return ["/".join(_parts(path)[:-1]) for path in self._paths(key)]

    @cached_property
    def _is_folder(self) -> Callable[[str], bool]:
        # Path.is_dir raises for a name that is too long, or none at all.
        return cache(lambda path: isdir(self.folder / path))  # noqa: PTH112


def is_listable(path: str) -> bool:
    """Return whether a line of a list can hold a path, and a terminal can show it.

    A name may have spaces of any kind and joined letters, but no line breaks, control characters or
    undecodable bytes.
    """
    return all(
        letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
        for letter in path
    )


def split_of(path: str) -> str:
    """Return the split that a path names by a folder or by its file name; "" if none."""
    found = SPLIT_FOLDER.findall(path.lower())
    return SPLIT_WORDS[found[-1]] if found else ""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list file that are not blank, or the strings of a JSON list."""
    if not is_file(path):
        raise no_such_file(path)
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise InputError(f"{path}: {size} bytes, too large for a list; divide it")
    try:
        text = read_text(path, fallback="cp1252")  # the code page of Western Windows
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the list that the split names") from None
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return [name for name in json.loads(text) if isinstance(name, str) and name.strip()]
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _header(line: str) -> int | None:
    """Return the column of images, if a line is the header of a table."""
    whole = [] if re.search("[\t;,]", line) else [[line]]
    for fields in (*whole, *_splittings(line)):
        for place, field in enumerate(fields):
            plain = re.sub("[^a-z]", "", field.lower())
            if len(plain) > 1 and _HEADER.fullmatch(plain):
                return place
    return None


def _splittings(line: str) -> Iterator[list[str]]:
    """Yield the columns of a line: by each separator, then by each run of spaces from the last on.

    >>> list(_splittings("a b.jpg;1"))
    [['a b.jpg', '1'], ['a', 'b.jpg;1']]
    """
    for separator in "\t;, ":
        if '"' in line or (separator in line and separator != " "):
            yield [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    spaces = list(re.finditer(r"\s+", line.strip()))
    for space in reversed(spaces if len(spaces) <= _MOST_SPACES else spaces[:1]):
        yield [line.strip()[: space.start()], line.strip()[space.end() :]]


def _variants(entry: str) -> list[str]:
    """Return an entry as it is, and without what other systems add to a path.

    >>> _variants("file:///set/a%20b.jpg ")[2:]
    ['/set/a b.jpg']
    """
    plain = entry.strip().strip("\"'")
    path = plain.replace("\\", "/")
    if match := _ROOT.match(path):
        path = unquote(path[match.end() :]) if ":" in match[0] else path[match.end() :]
    return list(dict.fromkeys((entry, entry.strip(), plain, path)))


def key_of(path: str, pattern: str) -> str:
    """Return the key of a path from any root; `path` itself if it fits no pattern."""
    return next((key for one in alternatives(pattern) for key in _candidates(path, one)), path)


def _candidates(entry: str, pattern: str) -> Iterator[str]:
    """Yield the keys of the files whose path `entry` may be, the likeliest first.

    An entry may lack the pattern's outer folders, or all folders, but not the inner one alone.
    """
    if "{key}" not in pattern:
        return
    before, after = pattern.split("{key}", 1)
    folders = before[: before.rfind("/") + 1]
    for outer in (0, *(slash.end() for slash in re.finditer("/(?=.*/)", folders))):
        expression = re.compile(f"{re.escape(before[outer:])}(?P<key>.+){re.escape(after)}")
        for path in (entry, folders + entry):
            for start in (0, *(slash.end() for slash in re.finditer("/", path))):
                if match := expression.fullmatch(path, start):
                    yield match["key"]


def _is_file_name(text: str) -> bool:
    return text.lower().endswith(_SUFFIXES)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".", "..")]


def _normal(path: str) -> str:
    """Return a path without its suffix, in composed letters."""
    suffix = next((end for end in _SUFFIXES if path.lower().endswith(end)), "")
    return unicodedata.normalize("NFC", path[: len(path) - len(suffix)])
