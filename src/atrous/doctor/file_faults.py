"""What is wrong with files: they cannot be read, differ in size, are there twice or alone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from PIL import Image

from atrous.doctor.findings import Case, Finding, many
from atrous.doctor.name_faults import name_findings
from atrous.doctor.splits import rank
from atrous.doctor.survey import Pair, Reading

_EXIF_ORIENTATION = 0x0112


def file_findings(case: Case) -> list[Finding]:
    """What is wrong with single files and pairs of them."""
    judges = (_unreadable, _turned, _sizes, _copies, _unpaired, _elsewhere)
    findings = [finding for judge in judges for finding in judge(case)]
    return [*findings, *name_findings(case.layout)]


def _unreadable(case: Case) -> Iterator[Finding]:
    images = [(r.pair, r.image_error) for r in case.readings if r.image_error]
    masks = [(r.pair, r.mask_error) for r in case.readings if r.mask_error]
    for half, mend, bad in (
        ("image", "copy or download", images),
        ("mask", "mend or export", masks),
    ):
        if bad:
            fix = f"{mend} them again"
            if all("pip install" in error for _, error in bad):
                fix = "install what reads them"
            yield Finding(
                code=f"unreadable-{half}",
                severity="problem",
                count=len(bad),
                message=f"{many(len(bad), half)} cannot be read",
                examples=_lines(case, (error for _, error in bad)),
                mend=f"{fix}; --write leaves them out",
                pairs=tuple(pair for pair, _ in bad),
                leaves_out=True,
            )


def _turned(case: Case) -> Iterator[Finding]:
    """Images turned by EXIF. Their sizes tell of the masks where width and height change places."""
    swapped = _swapped(case)
    unsure = [
        reading
        for reading in case.readings
        if reading.image_size == reading.mask_size
        and not reading.pair.image.lower().endswith(".png")  # slow, and such PNGs are rare
        and (orientation := _orientation(case, reading)) > 1
        and (orientation < 5 or reading.image_size[0] == reading.image_size[1])
    ]
    if swapped:
        yield Finding(
            code="exif-rotated",
            severity="problem",
            count=len(swapped),
            message=f"{many(len(swapped), 'image')} turned by EXIF, but the mask is not",
            examples=tuple(f"{r.pair.image} (mask {r.pair.mask})" for r in swapped),
            mend="turn these masks as well, or take the orientation out of the EXIF;"
            " --write leaves them out",
            pairs=tuple(reading.pair for reading in swapped),
            leaves_out=True,
        )
    if unsure:
        yield Finding(
            code="exif-rotated",
            severity="note",
            count=len(unsure),
            message=f"{many(len(unsure), 'image')} turned by EXIF to the same size",
            examples=tuple(f"{r.pair.image} (mask {r.pair.mask})" for r in unsure),
            mend="look at them, as --html shows them; turn the masks that are not upright",
            pairs=tuple(reading.pair for reading in unsure),
        )


def _sizes(case: Case) -> Iterator[Finding]:
    swapped = _swapped(case)
    other = [reading for reading in _of_other_size(case) if reading not in swapped]
    if other:
        yield Finding(
            code="size-mismatch",
            severity="problem",
            count=len(other),
            message=f"{many(len(other), 'mask')} not of the image's size",
            examples=tuple(
                f"{r.pair.mask} is {_size(r.mask_size)}, {r.pair.image} {_size(r.image_size)}"
                for r in other
            ),
            mend="resize these masks without interpolation, if they show the whole image;"
            " --write leaves them out",
            pairs=tuple(reading.pair for reading in other),
            leaves_out=True,
        )


def _of_other_size(case: Case) -> list[Reading]:
    return [
        reading
        for reading in case.readings
        if reading.tally and not reading.image_error and reading.image_size != reading.mask_size
    ]


def _swapped(case: Case) -> list[Reading]:
    """Those whose mask has the size of the image before its EXIF orientation turned it."""
    return [
        reading
        for reading in _of_other_size(case)
        if reading.mask_size == reading.image_size[::-1] and _orientation(case, reading) >= 5
    ]


def _copies(case: Case) -> Iterator[Finding]:
    groups: dict[bytes, list[Pair]] = defaultdict(list)
    for reading in case.readings:
        if reading.digest:
            groups[reading.digest].append(reading.pair)
    repeated = [pairs for pairs in groups.values() if len(pairs) > 1]
    leaked, again = [], []  # an image in two splits stays in the one that is held out further
    for pairs in repeated:
        pairs.sort(key=lambda pair: rank(pair.split))
        stays = max((pair.split for pair in pairs), key=rank)
        leaked += [pair for pair in pairs if pair.split != stays]
        again += [pair for pair in pairs if pair.split == stays][1:]
    first = {pair: pairs for pairs in repeated for pair in pairs}
    if leaked:
        yield Finding(
            code="leakage",
            severity="problem",
            count=len(leaked),
            message=f"{many(len(leaked), 'image')} also in another split, so scores are too high",
            examples=tuple(
                " = ".join(dict.fromkeys(f"{p.split} {p.image}" for p in first[pair]))
                for pair in leaked
            ),
            mend="take them out of one of the two; --write keeps those of val and test",
            pairs=tuple(leaked),
            leaves_out=True,
        )
    if again:
        yield Finding(
            code="duplicate-image",
            severity="problem",
            count=len(again),
            message=f"{many(len(again), 'image')} with the very pixels of another",
            examples=tuple(
                " = ".join(dict.fromkeys((pair.image, *(p.image for p in first[pair]))))
                for pair in again
            ),
            mend="keep one of each; --write keeps the first",
            pairs=tuple(again),
            leaves_out=True,
        )


def _unpaired(case: Case) -> Iterator[Finding]:
    sides = (
        ("image", "mask", case.layout.unpaired_images),
        ("mask", "image", case.layout.unpaired_masks),
    )
    for this, other, paths in sides:
        if paths:
            yield Finding(
                code=f"unpaired-{this}",
                severity="problem",
                count=len(paths),
                message=f"{many(len(paths), this)} without {other}",
                examples=paths,
                mend=f"add the {other}s, named and ending as all others;"
                " without them --write leaves these out",
            )


def _elsewhere(case: Case) -> Iterator[Finding]:
    if paths := case.layout.elsewhere:
        more = case.layout.pairs_elsewhere
        masks = f"; {more:,} have masks" if more else ", without masks"
        yield Finding(
            code="unused-image",
            severity="problem" if more else "note",
            count=len(paths),
            message=f"{many(len(paths), 'image')} in other folders{masks}",
            examples=paths,
            mend="none needed, if they are not labelled"
            if not more
            else "put them with the others: a dataset.toml has one pattern for each split",
        )


def _orientation(case: Case, reading: Reading) -> int:
    """How EXIF turns an image: 1 not at all, 2 to 4 to the same size, 5 to 8 to the transposed."""
    try:
        with Image.open(case.folder / reading.pair.image) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata: then it was not turned
        return 1


def _lines(case: Case, errors: Iterable[str]) -> tuple[str, ...]:
    """Errors without the folder that each begins with."""
    return tuple(" ".join(error.split()).removeprefix(f"{case.folder}/") for error in errors)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
