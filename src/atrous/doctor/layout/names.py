"""What the names of folders and files tell: words (words.toml), and suffixes.

Pairs are found by patterns that end in one suffix. So a file whose suffix is rare in its folder is
paired under the name that it would have with the usual one, and gets its own back afterwards.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from atrous.data.patterns import with_suffixes
from atrous.decode import own_toml
from atrous.doctor.layout.files import Files, Layout
from atrous.images.photos import IMAGE_SUFFIXES


def one_of(*kinds: str) -> str:
    """The regular expression of all words of these kinds."""
    return "|".join(word for kind in kinds for word in _WORDS[kind])


_WORDS = own_toml(__file__, "words.toml", dict[str, list[str]])
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})+$", re.I)
_IMAGE_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|8BPS|v/1\x01|FUJIFILM"
    rb"|\0\0\0\x0c(?:jP|JXL) |.{4}ftyp(?:heic|heix|mif1|msf1|avif|crx )",
    re.DOTALL,
)
"""JPEG, PNG, GIF, WebP, TIFF and the raw files that are one, Photoshop, EXR, JPEG 2000, JPEG XL,
HEIC, AVIF and Canon's raw files."""
_MAX_LOOKED_AT = 2000


@dataclass(frozen=True)
class Merged:
    """The paths by which files are paired: with one suffix for each folder."""

    real: Mapping[str, str]
    """The file's own path, by the path that it is paired under."""
    same_key: tuple[str, ...]
    """Files that are left out because they differ in their suffixes only: "a.jpg = a.png"."""


def merge_suffixes(units: Mapping[str, Hashable]) -> Merged:
    """Give the images of each unit, such as a folder, one suffix.

    A suffix whose files mostly have the names of others is no other spelling of these: of x.jpg and
    x.png, one is the mask.
    """
    by_unit: dict[Hashable, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, unit in units.items():
        match = _SUFFIX.search(path)
        suffix = match[0] if match else ""
        by_unit[unit, bool(suffix) or path][suffix].append(path.removesuffix(suffix))
    real, same_key = dict[str, str](), list[str]()
    for stems in by_unit.values():
        # Of each suffix that counts, the suffix of each stem; None where there are several.
        taken: dict[str, dict[str, str | None]] = {}
        for suffix, own in sorted(stems.items(), key=lambda item: (-len(item[1]), item[0])):
            fits = (s for s in taken if 2 * len(taken[s].keys() & own) < len(own))
            usual = taken.setdefault(next(fits, suffix), {})
            for stem in own:
                if (other := usual.setdefault(stem, suffix)) != suffix:
                    same_key.append(f"{stem}{other or ''} = {stem}{suffix}")
                    usual[stem] = None
        for end, suffixes in taken.items():
            real |= {stem + end: stem + s for stem, s in suffixes.items() if s is not None}
    return Merged(real, tuple(sorted(same_key)))


def with_real_paths(layout: Layout, merged: Merged) -> Layout:
    """Give the files of a layout of merged paths their own suffixes, in patterns and paths."""
    real = merged.real

    def own(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(real.get(path, path) for path in paths)

    copies = _copies(own(layout.paths()), real.values())
    return replace(
        layout,
        splits={name: _with_own_suffixes(files, real) for name, files in layout.splits.items()},
        unpaired_images=own(layout.unpaired_images),
        unpaired_masks=own(layout.unpaired_masks),
        elsewhere=tuple(path for path in own(layout.elsewhere) if path not in copies),
        same_key=(*merged.same_key, *(f"{first} = {path}" for path, first in copies.items())),
    )


def _copies(used: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """Return unused files with the used ones that differ from them in their suffixes only."""
    images = {path for path in used if _SUFFIX.search(path)}
    by_stem = {_SUFFIX.sub("", path): path for path in sorted(images, reverse=True)}
    stems = {path: _SUFFIX.sub("", path) for path in sorted(paths) if _SUFFIX.search(path)}
    return {p: by_stem[stem] for p, stem in stems.items() if stem in by_stem and p not in images}


def _with_own_suffixes(files: Files, real: Mapping[str, str]) -> Files:
    patterns = [files.images]
    patterns += [files.labels.replace("{class}", name) for name in files.classes or ("",)]
    paths = [[pattern.replace("{key}", key) for key in files.keys] for pattern in patterns]
    images = _pattern(files.images, paths[0], real)
    labels = _pattern(files.labels, [path for masks in paths[1:] for path in masks], real)
    if (images, labels) == (files.images, files.labels):
        return files
    own = {key: (files.image(key), files.mask(key)) for key in files.keys}
    places = {key: (real.get(i, i), real.get(m, m)) for key, (i, m) in own.items()}
    if files.classes:  # each class may have another suffix
        places = {key: (image, labels.replace("{key}", key)) for key, (image, _) in places.items()}
    return replace(files, images=images, labels=labels, places=places)


def _pattern(pattern: str, paths: Iterable[str], real: Mapping[str, str]) -> str:
    """Return a pattern with the real suffixes of its files."""
    if not (match := _SUFFIX.search(pattern)):
        return pattern
    suffixes = {
        real[path].removeprefix(path.removesuffix(match[0])) for path in paths if path in real
    }
    return with_suffixes(pattern[: match.start()], sorted(suffixes))


def unread_images(folder: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield files of unknown suffixes whose first bytes are those of an image format."""
    for path in list(paths)[:_MAX_LOOKED_AT]:
        try:
            with (folder / path).open("rb") as file:
                start = file.read(132)
        except OSError:
            continue
        if _IMAGE_STARTS.match(start) or start[128:] == b"DICM":
            yield path
