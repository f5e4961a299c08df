"""Splits by list files: which lists of a folder are about splits, and what they leave open."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from atrous.data.lists import SPLIT_WORDS, Named, Place, is_listable, read_lines
from atrous.doctor.layout.files import UNDIVIDED, Files, Layout, rank
from atrous.errors import InputError

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
_SPLIT = "training|train|validation|valid|val|dev|testing|test"
_WORD = re.compile(
    rf"(?P<splits>(?:{_SPLIT})*)(?:(?:image|img|file)?(?:name|list|id|path|set|split|image|img|file|"
    r"sample|key|index|data|aug)s?)?"
)
"""A word of the name of a list; it may say its split, and that it is a list."""
_MAX_LIKELY = 8
"""Lists whose names have further words: that many of one split are read, and no more."""
_MAX_BYTES = 1 << 26
_MAX_LETTERS = 200
"""Letters of a line."""
_MAX_HEADER = 4096
_PROBE_LINES = 1000
"""Lines that are tried first, so that a large table of other things takes no time."""


@dataclass(frozen=True)
class _List:
    """A list that names pairs."""

    path: str
    files: Files
    named: Named

    @property
    def fit(self) -> float:
        """The part of its entries that name a pair."""
        return len(self.files.keys) / (len(self.files.keys) + len(self.named.missing))


class _UnusedError(Exception):
    """Why a list is not used."""

    def __init__(self, why: str, *, is_fault: bool = True) -> None:
        super().__init__(why)
        self.is_fault = is_fault


def with_lists(layout: Layout, paths: Iterable[str]) -> Layout:
    """Divide a layout by the list files among `paths` that are named after splits.

    Of several lists of one split, the one counts that most of its entries fit; a list whose name
    says something else as well ("fold1_train.txt") counts if it is the only one. Where only some
    splits have a list, the other pairs are the split that is missing.
    """
    used = layout.paths().union(layout.unpaired_images, layout.unpaired_masks)
    stems = {_stem(path) for path in used}  # those of labels and captions of one image, too
    texts = [path for path in paths if _stem(path) not in stems]
    names = {path: found for path in texts if (found := _list_name(path))}
    places = {name: _place(layout.folder, files) for name, files in layout.splits.items()}
    unread = "names splits in a way that is not read"
    unused = [f"{path}: {unread}" for path, name in names.items() if not name[0]]
    tables = [path for path in texts if _has_split_column(layout.folder, path)]
    other = [f"{path}: {unread}" for path in tables if path not in names]
    if UNDIVIDED in layout.splits:
        unused, other = [*unused, *other], []
    chosen: dict[str, _List] = {}

    def read(split: str, *, is_plain: bool) -> list[_List]:
        likely = [path for path, name in names.items() if name == (split, is_plain)]
        if not is_plain and len(likely) > _MAX_LIKELY:
            other.extend(f"{path}: one of {len(likely)} lists of {split}" for path in likely)
            return []
        lists = []
        for path in likely:
            try:
                lists.append(_read_list(layout, places, path, split, 0.0 if is_plain else 0.5))
            except _UnusedError as error:
                (unused if is_plain and error.is_fault else other).append(f"{path}: {error}")
        return lists

    for split in ("train", "val", "test", "trainval"):
        lists = read(split, is_plain=True)
        if not lists:
            lists = read(split, is_plain=False)
            if len({one.files.keys for one in lists}) > 1:
                other += [f"{one.path}: one of several lists of {split}" for one in lists]
                continue
        for one in sorted(lists, key=_order):
            if chosen.setdefault(split, one).files.keys != one.files.keys:
                other.append(f"{one.path}: {chosen[split].path} counts")
    layout = replace(layout, unused_lists=tuple(unused), other_lists=tuple(other))
    return _divided(layout, chosen) if chosen else layout


def _order(one: _List) -> tuple[float, bool, int, str]:
    """Sort the most likely list of a split first: VOC has lists of boxes beside that of masks."""
    return -one.fit, "segment" not in one.path.lower(), len(one.path), one.path


def _has_split_column(folder: Path, path: str) -> bool:
    """Return whether a table has a column that names the split of each image."""
    if not path.lower().endswith((".csv", ".tsv")):
        return False
    try:
        with (folder / path).open("rb") as file:
            header = file.readline(_MAX_HEADER).decode("utf-8-sig", "replace").lower()
    except OSError:
        return False
    return not {"split", "subset", "partition"}.isdisjoint(re.findall("[a-z_]+", header))


def _list_name(path: str) -> tuple[str, bool] | None:
    """Return the split that a list is named after, "" if several; and whether it says no more."""
    pure = PurePosixPath(path)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", pure.stem)
    words = re.findall("[a-z]+|[0-9]+", spaced.lower())
    if words[:1] == ["dataset"]:  # the doctor's own lists
        return None
    matches = [_WORD.fullmatch(word) for word in words]
    splits = {SPLIT_WORDS[split] for m in matches if m for split in re.findall(_SPLIT, m["splits"])}
    about_splits = "split" in words or "splits" in words
    if pure.suffix.lower() not in LIST_SUFFIXES:
        return ("", True) if about_splits and pure.suffix.lower() == ".json" else None
    if splits == {"train", "val"}:
        split = "trainval"
    elif len(splits) == 1:
        (split,) = splits
    else:
        return ("", True) if splits or about_splits else None
    is_year = re.compile(r"(?:19|20)\d\d").fullmatch
    return split, all(m or is_year(word) for m, word in zip(matches, words, strict=True))


def _place(folder: Path, files: Files) -> Place:
    keys = frozenset(files.keys)
    return Place(folder, files.images, files.labels, keys.__contains__, lambda: files.keys)


def _read_list(
    layout: Layout, places: Mapping[str, Place], path: str, split: str, least: float
) -> _List:
    """Return the pairs that a list names: those of its split, or else of any.

    Args:
        layout: all pairs.
        places: where those of each split lie.
        path: of the list.
        split: that it is named after.
        least: the part of its entries that must name pairs.
    """
    try:
        if (layout.folder / path).stat().st_size > _MAX_BYTES:
            raise _UnusedError("too large for a list")
        lines = read_lines(layout.folder / path)
    except (InputError, OSError) as error:
        raise _UnusedError(f"cannot be read ({error})") from None
    if not lines:
        raise _UnusedError("is empty")
    probe, best = lines[:: len(lines) // _PROBE_LINES + 1], None
    for name, files in sorted(layout.splits.items(), key=lambda item: item[0] != split):
        if not places[name].named(probe).keys:
            continue
        named = places[name].named(lines)
        if best is None or len(named.keys) > len(best.named.keys):
            best = _List(path, replace(files, keys=tuple(named.keys)), named)
    count = len(best.named.keys) if best else 0
    if best is None or count < least * len(lines):
        strays = _stray_place(layout.folder, (*layout.unpaired_images, *layout.elsewhere))
        if bare := len(strays.named(lines).keys):
            raise _UnusedError(f"{bare:,} of its images are in no pair", is_fault=False)
        raise _UnusedError(f"{count} of its {len(lines):,} entries are names of pairs")
    return best


def _divided(layout: Layout, lists: Mapping[str, _List]) -> Layout:
    """Divide a layout by one list for each split, and say what the lists leave open."""
    splits, guesses = _with_trainval(lists)
    whole = layout.splits.get(UNDIVIDED)
    listed = {files.image(key) for files in splits.values() for key in files.keys}
    listed |= {one.files.image(key) for one in lists.values() for key in one.named.crossed}
    rest = {
        name: tuple(key for key in files.keys if files.image(key) not in listed)
        for name, files in layout.splits.items()
    }
    is_rest_used = False
    if whole is None:
        others = {name: replace(files, keys=rest[name]) for name, files in layout.splits.items()}
        unlisted = [others[name].image(k) for name in splits if name in others for k in rest[name]]
        splits = {**others, **splits}
    else:
        others, left = {}, rest[UNDIVIDED]
        missing = "train" if "train" not in splits else "val" if [*lists] == ["train"] else ""
        if missing == "train" and not left:
            why = tuple(f"{one.path}: leaves no pair to train on" for one in lists.values())
            return replace(layout, unused_lists=(*layout.unused_lists, *why))
        is_rest_used = bool(missing and left)
        if is_rest_used:
            splits[missing] = replace(whole, keys=left)
            sources = " and ".join(one.path for one in lists.values())
            guesses += [f"{len(left):,} pairs that are not in {sources} are taken as {missing}"]
        unlisted = [] if is_rest_used else [whole.image(key) for key in left]
    layout = replace(
        layout,
        splits={name: splits[name] for name in sorted(splits, key=rank) if splits[name].keys},
        origin="lists" if whole else layout.origin,
        guesses=tuple(guesses),
        unlisted=tuple(unlisted),
        crossed=tuple(
            _entry(one, line) for one in lists.values() for line in one.named.crossed.values()
        ),
    )
    return _with_missing(layout, lists.values(), all_unpaired=whole is None or is_rest_used)


def _with_trainval(lists: Mapping[str, _List]) -> tuple[dict[str, Files], list[str]]:
    """Return the splits that lists name; trainval without train is val, and the reverse."""
    splits = {name: one.files for name, one in lists.items() if name != "trainval"}
    both = lists.get("trainval")
    absent = [name for name in ("train", "val") if name not in splits]
    if both is None or not absent:
        return splits, []
    held = {key for files in splits.values() for key in files.keys}
    keys = tuple(key for key in both.files.keys if key not in held)
    if not keys:
        return splits, []
    splits[absent[0]] = replace(both.files, keys=keys)
    if len(absent) == 2:
        return splits, [f"{both.path} is divided into train and val"]
    source = f"{len(keys):,} pairs of {both.path} that no other list names"
    return splits, [f"{source} are taken as {absent[0]}"]


def _with_missing(layout: Layout, lists: Iterable[_List], *, all_unpaired: bool) -> Layout:
    """Tell list entries of unpaired files from entries of files that do not exist.

    Unpaired files that no list names are left out, unless they might be of a split: VOC publishes
    masks of some of its images only.
    """
    missing: list[str] = []
    sides = (layout.unpaired_images, layout.unpaired_masks)
    kept: tuple[set[str], set[str]] = (set(), set())
    places = [_stray_place(layout.folder, side) for side in sides]
    for one in lists:
        entries: Sequence[str] = one.named.missing
        for place, stems in zip(places, kept, strict=True):
            named = place.named(entries)
            stems.update(named.keys)
            entries = named.missing
        missing += [_entry(one, entry) for entry in entries]
    images, masks = (
        tuple(path for path in side if all_unpaired or _stem(path) in stems)
        for side, stems in zip(sides, kept, strict=True)
    )
    return replace(layout, unpaired_images=images, unpaired_masks=masks, missing=tuple(missing))


def _stray_place(folder: Path, paths: Iterable[str]) -> Place:
    """Return the place of unpaired files, whose keys are their stems."""
    stems = {_stem(path): None for path in paths}
    return Place(folder, "{key}", "", stems.__contains__, stems.keys, any_folder=True)


def _stem(path: str) -> str:
    """A path without its last suffix."""
    return path.rpartition(".")[0]


def _entry(one: _List, line: str) -> str:
    """Return a line of a list as messages show it."""
    shown = "".join(c if is_listable(c) else "?" for c in line.strip()[:_MAX_LETTERS])
    return f"{one.path}: {shown}"
