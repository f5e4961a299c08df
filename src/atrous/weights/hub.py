"""Weights that other projects publish, as run folders in the user's cache."""

from pathlib import Path

from atrous.errors import InputError
from atrous.progress import Notify, Track, unheard, untracked
from atrous.run import has_run
from atrous.weights.cache import cache_folder
from atrous.weights.published import PUBLISHED, fetch_run


def published_run(
    name: str,
    track: Track = untracked,
    notify: Notify = unheard,
) -> Path:
    """Return the run folder of a published checkpoint, fetched and converted when first asked for.

    Args:
        name: a key of `PUBLISHED`.
        track: told the bytes that have come.
        notify: told of breaks.

    Raises:
        InputError: it is not here yet and cannot be fetched, or there is no place to keep it.
        ImportError: torch is not installed.
        OSError: the disk is full.
    """
    try:
        folder = cache_folder() / "weights" / name
    except RuntimeError:
        raise InputError(f"{name}: no home to keep it in; set XDG_CACHE_HOME to a folder") from None
    if not has_run(folder):
        fetch_run(PUBLISHED[name], folder, track, notify)
    return folder
