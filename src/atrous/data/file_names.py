"""Match file names in a JSON of another machine with the files that are here.

A name may be a Windows path, an address (`https://host/x%20y.jpg?token`, `s3://`, `file://`), or
begin with the folder of a server (`/data/upload/1/`). Label Studio puts eight hexadecimal digits
before a name. An ending that two names share stands for neither.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

_HOST = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://[^/]*|[a-zA-Z]:(?=/)")
_LOCAL_FILE = re.compile(r"[?&]d=([^&]+)")
"""Label Studio's `/data/local-files/?d=folder/x.jpg`."""
_UPLOAD = re.compile(r"(?<![^/])[0-9a-f]{8}-(?=[^/]+$)")
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)")


def match_files(names: Iterable[str], paths: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return the files that each name can mean.

    Outer folders of a name may be of the machine that wrote it, so they are left out where that
    helps; the last one only where no name fits otherwise, and not for a file of another split.

    Args:
        names: as the JSON has them.
        paths: of files, with "/".

    Returns:
        For each name that fits, the paths that end in it, each cut where that ending starts.
    """
    names, paths = list(names), list(paths)
    for spellings in (_WITH_FOLDER, _ALONE):
        endings = _endings(names, spellings)
        found: dict[str, dict[int, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for path in paths:
            starts = (0, *(slash.end() for slash in re.finditer("/", path)))
            start = next((start for start in starts if path[start:] in endings), None)
            if start is None:
                continue
            rank, name = endings[path[start:]]
            if name and _same_split(name, path):
                found[name][rank].append((path[:start], path[start:]))
        if found:
            return {name: places[min(places)] for name, places in found.items()}
    return {}


def slashes(name: str) -> str:
    r"""Return a path with "/" where Windows has "\\"; without a host, a drive or a query.

    >>> slashes("C:\\photos\\x.jpg"), slashes("s3://bucket/photos/x.jpg")
    ('photos/x.jpg', 'photos/x.jpg')
    """
    path = name.replace("\\", "/")
    if local := _LOCAL_FILE.search(path):
        path = unquote(local[1])
    elif host := _HOST.match(path):
        path = path[host.end() :].split("?")[0].split("#")[0]
    elif path.startswith("/"):
        path = path.split("?")[0]
    return path.removeprefix("./").lstrip("/")


_SPELLINGS: Sequence[Callable[[str], str]] = (
    slashes,
    lambda name: unquote(slashes(name)),
    lambda name: _UPLOAD.sub("", unquote(slashes(name))),
)
_Spelling = tuple[Callable[[str], str], int]
"""How to spell a name, and the fewest parts of its endings; 0: only the whole name."""
_WITH_FOLDER: Sequence[_Spelling] = (
    (str, 0),
    *((spell, 0) for spell in _SPELLINGS),
    *((spell, 2) for spell in _SPELLINGS),
)
_ALONE: Sequence[_Spelling] = tuple((spell, 1) for spell in _SPELLINGS)


def _endings(names: Iterable[str], spellings: Sequence[_Spelling]) -> dict[str, tuple[int, str]]:
    """Return the name of each ending of a path, and its spelling's rank; "" where two share it."""
    found: dict[str, tuple[int, str]] = {}
    for rank, (spell, least) in enumerate(spellings):
        owners: dict[str, set[str]] = defaultdict(set)
        for name in names:
            parts = spell(name).split("/")
            for start in range(len(parts) - least + 1 if least else 1):
                owners["/".join(parts[start:])].add(name)
        for ending, some in owners.items():
            found.setdefault(ending, (rank, some.pop() if len(some) == 1 else ""))
    return found


def _same_split(name: str, path: str) -> bool:
    """Return False where the folders of both name different splits."""
    a, b = (set(_SPLIT.findall(text.lower().rpartition("/")[0])) for text in (slashes(name), path))
    return not (a and b) or bool(a & b)
