"""`atrous segment`: photos and folders to labels, overlays and coverage."""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from atrous.cli.progress import watched
from atrous.files import InputError

if TYPE_CHECKING:
    from atrous.infer.segmenter import Outcome, Segmentation, Segmenter

_BAR_WIDTH = 44
"""Of the whole area, in characters: with the names, a table stays within 80 columns."""
_MOST_ROWS = 8
"""Classes that a table shows; the smaller ones are summed up."""
_OWN_ENDINGS = (".labels.png", ".overlay.png")


def segment(
    paths: list[str],
    /,
    *,
    model: str = "camvid",
    out: Path = Path(),
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Label photos: writes NAME.labels.png, NAME.overlay.png and NAME.json of each.

    Args:
        paths: Photos, or folders that are searched for photos.
        model: Name of a shipped model, a bundle (.onnx), or a run folder.
        out: Folder for the files; by default the current one.
        json_output: Print one JSON document instead of tables.

    Returns:
        The exit code: 2 where a photo could not be read, 0 otherwise.
    """
    # for the sake of `atrous segment --help`
    from atrous.infer.segmenter import load

    targets = _targets(paths, out)
    segmenter = load(model)
    documents: list[dict[str, Any]] = []
    failures: list[str] = []
    block = _block()
    for outcome, files in _saved(segmenter, targets):
        path, result = outcome
        if isinstance(result, InputError):
            failures.append(str(result))
            print(f"error: {result}", file=sys.stderr)
        elif json_output:
            documents.append({**result.to_dict(), "files": [str(file) for file in files]})
        else:
            print(_table(path, result, files, block))
    if json_output:
        print(json.dumps({"images": documents, "errors": failures}, indent=2))
    else:
        _print_end(segmenter, len(targets), len(failures))
    return 2 if failures else 0


def _targets(paths: Sequence[str], out: Path) -> dict[Path, Path]:
    """Return each photo and the path, without ending, of the files that are written for it."""
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for text in paths:
        if text.startswith(("http:", "https:")):
            raise InputError(f"{text}: an address; download it first, then give the file")
        path = Path(text)
        for photo in _photos_in(path) if path.is_dir() else [path]:
            place = out / (photo.relative_to(path).parent if path.is_dir() else "")
            if photo not in targets:
                targets[photo] = _free(place, photo, taken)
                taken.add(targets[photo])
    return targets


def _free(place: Path, photo: Path, taken: set[Path]) -> Path:
    """Return PLACE/STEM; where that is taken, PLACE/STEM.SUFFIX; then with a number."""
    names = [photo.stem, photo.name] + [
        f"{photo.name}-{number}" for number in range(2, len(taken) + 3)
    ]
    return next(place / name for name in names if place / name not in taken)


def _photos_in(folder: Path) -> list[Path]:
    """Return the photos at any depth, sorted; without hidden ones and without what atrous wrote."""
    from atrous.images import IMAGE_SUFFIXES

    photos = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.endswith(_OWN_ENDINGS)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not photos:
        raise InputError(
            f"{folder}: no photos in this folder; give one that holds JPEG, PNG or the like"
        )
    return photos


def _saved(
    segmenter: "Segmenter", targets: dict[Path, Path]
) -> Iterator[tuple["Outcome", list[Path]]]:
    """Segment and save each photo, in order; encoding runs beside decoding and the network."""
    from atrous.infer.segmenter import in_order

    def save(outcome: "Outcome") -> tuple["Outcome", list[Path]]:
        path, result = outcome
        if isinstance(result, InputError):
            return outcome, []
        target = targets[path]
        return outcome, result.save(target.parent, target.name)

    with ThreadPoolExecutor(2) as encoders:
        outcomes = in_order(encoders, save, segmenter.stream(targets), ahead=3)
        with watched("photos") as progress:
            for count, outcome in enumerate(outcomes, start=1):
                progress(count, len(targets))
                yield outcome


def _table(path: Path, result: "Segmentation", files: Sequence[Path], block: str) -> str:
    """Return what a person sees of one photo: its classes, largest first, and the files."""
    height, width = result.labels.shape
    milliseconds = f"{result.seconds * 1000:.0f} ms"
    lines = [f"{path}  {width}x{height}  {result.model}  {milliseconds}"]
    rows = list(result.coverage().items())
    name_width = min(28, max(len(name) for name, _ in rows))
    for name, share in rows[:_MOST_ROWS]:
        bar = block * round(share * _BAR_WIDTH)
        lines.append(f"  {name:<{name_width}}  {100 * share:5.1f} %  {bar}".rstrip())
    if rest := sum(share for _, share in rows[_MOST_ROWS:]):
        lines.append(f"  {'others':<{name_width}}  {100 * rest:5.1f} %")
    lines.append("wrote  " + "  ".join(str(file) for file in files))
    return "\n".join(lines)


def _block() -> str:
    """Return a full block, or # where standard output cannot write one."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"


def _print_end(segmenter: "Segmenter", count: int, failed: int) -> None:
    if count > 1:
        print(f"{count - failed} of {count} photos segmented")
    if failed == count:
        return
    classes = segmenter.metadata.taxonomy.classes
    shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    print(f"This model knows {len(classes)} classes ({shown}). Others: atrous models")
