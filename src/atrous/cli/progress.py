"""Lines and progress bars on standard error; bars are shown on a terminal only."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.errors import InputError
from atrous.progress import Progress
from atrous.weights.hub import is_remote, kept_bundle, resolve, run_beside
from atrous.weights.repository import is_address

if TYPE_CHECKING:  # `segment` needs no data sets
    from rich.progress import Progress as Bar

    from atrous.data.dataset import Dataset

PATIENCE = 2.0
"""Seconds before a bar appears."""


def say(line: str) -> None:
    """Print a line on standard error, above a bar if there is one."""
    print(line, file=sys.stderr)


def say_fourth_band(dataset: "Dataset") -> None:
    """Say what the fourth band of the data set's TIFFs was taken for, if there is one."""
    if line := dataset.fourth_band[1]:
        say(line)


def resolved(model: str | Path) -> Path:
    """Return the bundle or run folder of a model; a remote one is fetched, with a progress bar."""
    if not is_remote(model):
        return resolve(model)
    name = str(model)
    bundle = kept_bundle(name)
    if bundle is not None and bundle.is_file() and not is_address(name):
        return bundle
    from atrous.export import fetch  # slow to import

    return fetch(name, track_bytes, say)


def resolved_run(model: str | Path) -> Path:
    """As `resolved`, but return the run folder that a remote model's weights were converted to."""
    path = resolved(model)
    if not is_remote(model):
        return path
    if (run := run_beside(path)) is None:
        raise InputError(f"{model}: holds a bundle, where weights are needed; give a run folder")
    return run


@contextmanager
def track(step: str, *, in_bytes: bool = False) -> Iterator[Progress]:
    """Show the progress of a step, counted in things or in bytes; an `atrous.progress.Track`."""
    start = time.monotonic()
    bar: Bar | None = None

    def progress(done: int, total: int | None) -> None:
        nonlocal bar
        seconds = time.monotonic() - start
        if bar is None and sys.stderr.isatty() and seconds > PATIENCE:
            bar = _start_bar(step, in_bytes)
        if bar is not None:
            rate = f"{done / seconds:.3g}/s"
            bar.update(bar.task_ids[0], completed=done, total=total or None, rate=rate)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


track_bytes = partial(track, in_bytes=True)


def _start_bar(step: str, in_bytes: bool) -> "Bar":
    from rich import progress
    from rich.console import Console

    counts = (progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[rate]}"))
    sizes = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        *(sizes if in_bytes else counts),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # tables go above the bar, but pipes stay as they are
    )
    bar.add_task(step, total=None, rate="")
    bar.start()
    return bar
