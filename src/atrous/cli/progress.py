"""Lines and progress bars on standard error; bars are shown on a terminal only."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.progress import Notify, Progress, Track

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from atrous.data.dataset import Dataset

PATIENCE = 2.0
"""Seconds before the bar appears."""


def say(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr)


def say_fourth_band(dataset: "Dataset") -> None:
    """Say what a fourth band of the data set's TIFFs was taken for, if there is one."""
    if line := dataset.fourth_band[1]:
        say(line)


@contextmanager
def watched(what: str) -> Iterator[Progress]:
    """Yield what shall be called with how many `what` are done, and of how many."""
    start = time.monotonic()
    bar: Bar | None = None

    def progress(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None and sys.stderr.isatty() and time.monotonic() - start > PATIENCE:
            bar = _start_bar(what, total)
        if bar is not None:
            rate = done / (time.monotonic() - start)
            bar.update(bar.task_ids[0], completed=done, rate=f"{rate:.3g}/s")

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def watched_bytes() -> Iterator[tuple[Track, Notify]]:
    """Yield two functions: one for the bytes of each step, one for lines that stay.

    A step's bar shows the rate and the time left.
    """
    bar = _byte_bar()
    task = bar.tasks[0].id

    @contextmanager
    def track(step: str) -> Iterator[Progress]:
        bar.reset(task, description=step, total=None, visible=True)
        yield lambda done, total: bar.update(task, completed=done, total=total)

    def notify(line: str) -> None:
        bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    with bar:
        yield track, notify


def resolved(model: str | Path) -> Path:
    """Return the file or folder of a model; a published one is downloaded, with a progress bar."""
    from atrous.weights.hub import is_published, resolve

    if not is_published(model):
        return resolve(model)
    with watched_bytes() as (track, notify):
        return resolve(model, track, notify)


def _byte_bar() -> "Bar":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = _bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar.add_task("", total=None, visible=False)
    return bar


def _start_bar(what: str, total: int | None) -> "Bar":
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = _bar(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar.add_task(what, total=total, rate="")
    bar.start()
    return bar


def _bar(*columns: "ProgressColumn") -> "Bar":
    from rich.console import Console
    from rich.progress import Progress

    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # tables go above the bar, but pipes stay as they are
    )
