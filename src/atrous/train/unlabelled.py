"""Images without masks, from which a student learns what its teachers say of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from atrous.data.dataset import Dataset
from atrous.data.sample import Joined, Samples
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.images.folder import images_in
from atrous.progress import Notify, unheard
from atrous.text import amount


def find_unlabelled(
    dataset: Dataset,
    sources: Sequence[str],
    known: Iterable[Samples | None],
    notify: Notify = unheard,
) -> list[Split]:
    """Find the images of a recipe's `unlabelled`, each once.

    Images of `known` are left out: those of train take part with their masks, and those of val
    would make the scores of the validation too good. So are its masks, which are no photos.

    Args:
        dataset: whose splits may be named, and whose bands the images have.
        sources: names of splits, whose masks are not used, or folders of photos.
        known: the splits train and val, if there is one.
        notify: called with a line on each source.
    """
    splits = [split for split in known if isinstance(split, Split)]  # shards have no files
    taken = {path for split in splits for path in _files(split)} if sources else set()
    found = []
    for source in sources:
        images, keys = _images(dataset, source, notify), list[str]()
        for key, path in zip(images.keys, _paths(images), strict=True):
            if path not in taken:
                keys.append(key)
                taken.add(path)
        if not keys:
            raise InputError(
                f"{source}: all of its images are in train or val, or their masks, or named twice, "
                "so none takes part without a mask; give other photos"
            )
        others = len(images) - len(keys)
        left_out = f" ({others} more, of train or val or named twice, are left out)" * bool(others)
        notify(f"{source}: {amount(len(keys), 'image')} without masks{left_out}")
        found.append(replace(images, keys=tuple(keys)))
        found[-1][0]  # fails now, instead of after the start, if images have other bands
    return found


def joined(samples: Samples, unlabelled: Iterable[Samples]) -> Samples:
    """Return labelled samples, then those without labels."""
    for part in unlabelled:
        samples = Joined.of(samples, part)
    return samples


def _images(dataset: Dataset, source: str, notify: Notify) -> Split:
    """Return the images of a split or, where there is none of this name, of a folder."""
    if source in dataset.splits:
        split = dataset.split(source, masks=False)
        if not isinstance(split, Split):
            raise InputError(f"{source}: a split of shards, which hold masks; give a folder")
        return split.without_masks()
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            f"{source}: no such folder, and no split of {dataset.name}, which has "
            f"{', '.join(dataset.splits)}; give a folder of photos"
        )
    keys = tuple(path.relative_to(folder).as_posix() for path in images_in(folder, notify))
    return Split(folder, "{key}", "", keys, dataset.encoding, bands=dataset.bands)


def _files(split: Split) -> Iterator[Path]:
    """Yield the images of a split, and its masks."""
    yield from _paths(split)
    for key in split.keys:
        if "{class}" in split.labels:
            masks = [path for _, path in split.class_masks(key)]
        else:
            masks = [split.label_path(key)]
        yield from (path.resolve() for path in masks)


def _paths(split: Split) -> list[Path]:
    return [split.image_path(key).resolve() for key in split.keys]
