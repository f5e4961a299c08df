"""Lines and progress bars on standard error; bars are shown on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from atrous.data.dataset import Dataset

PATIENCE = 2.0
"""Seconds before a bar appears."""


def say(line: str) -> None:
    """Print a line on standard error, above a bar if there is one."""
    print(line, file=sys.stderr)


def say_fourth_band(dataset: "Dataset") -> None:
    """Say what a fourth band of the data set's TIFFs was taken for, if there is one."""
    if line := dataset.fourth_band[1]:
        say(line)


def watched(step: str) -> AbstractContextManager[Progress]:
    """Show how many things of a step are done; an `atrous.progress.Track`."""
    return _watched(step, _count_columns)


def watched_bytes(step: str) -> AbstractContextManager[Progress]:
    """Show how many bytes of a step are done; an `atrous.progress.Track`."""
    return _watched(step, _byte_columns)


def resolved(model: str | Path) -> Path:
    """Return the file or folder of a model; a published one is downloaded, with a progress bar."""
    from atrous.weights.hub import resolve

    return resolve(model, watched_bytes, say)


@contextmanager
def _watched(step: str, columns: "Callable[[], list[ProgressColumn]]") -> Iterator[Progress]:
    start = time.monotonic()
    bar: Bar | None = None

    def progress(done: int, total: int | None) -> None:
        nonlocal bar
        seconds = time.monotonic() - start
        if bar is None and sys.stderr.isatty() and seconds > PATIENCE:
            bar = _start_bar(step, columns())
        if bar is not None:
            rate = f"{done / seconds:.3g}/s"
            bar.update(bar.task_ids[0], completed=done, total=total or None, rate=rate)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(step: str, columns: "list[ProgressColumn]") -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # tables go above the bar, but pipes stay as they are
    )
    bar.add_task(step, total=None, rate="")
    bar.start()
    return bar


def _count_columns() -> "list[ProgressColumn]":
    from rich.progress import MofNCompleteColumn, TextColumn

    return [MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]


def _byte_columns() -> "list[ProgressColumn]":
    from rich.progress import DownloadColumn, TransferSpeedColumn

    return [DownloadColumn(), TransferSpeedColumn()]
