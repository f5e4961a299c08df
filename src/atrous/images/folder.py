"""The images below a folder that a stranger filled."""

from pathlib import Path

from atrous.errors import InputError
from atrous.files import walk
from atrous.images import photos
from atrous.progress import Notify
from atrous.text import some

_SUFFIXES = photos.IMAGE_SUFFIXES + photos.UNREAD_SUFFIXES
_OWN_ENDINGS = (
    *(".labels.png", ".labels.tif", ".overlay.jpg", ".overlay.png"),
    *(".confidence.png", ".confidence.tif"),
)
_OWN_FOLDERS = (".masks", ".cutouts")


def images_in(folder: Path, notify: Notify) -> list[Path]:
    """Return the images at any depth, sorted; hidden files and outputs of atrous are left out.

    Args:
        folder: to search.
        notify: called with a line about files that cannot be read.
    """
    files = [
        path
        for path in sorted(folder / name for name in walk(folder))
        if path.suffix.lower() in _SUFFIXES
        and not path.name.endswith(_OWN_ENDINGS)
        and not path.parent.name.endswith(_OWN_FOLDERS)
    ]
    unread = [path for path in files if path.suffix.lower() in photos.UNREAD_SUFFIXES]
    heif = [] if photos.can_read_heif() else [path for path in files if _is_heif(path)]
    for paths, fix in (
        (unread, "of a format that is not read: convert to JPEG, PNG or TIFF"),
        (heif, f"HEIC, which an extra reads: {photos.HEIF_INSTALL}"),
    ):
        if paths:
            notify(f"passed over: {some(map(str, paths))}: {fix}")
    if not (images := [path for path in files if path not in {*unread, *heif}]):
        raise InputError(
            f"{folder}: no photos in this folder; give one that holds JPEG, PNG or the like"
        )
    return images


def _is_heif(path: Path) -> bool:
    return path.suffix.lower() in photos.HEIF_SUFFIXES and photos.is_heif(path)
