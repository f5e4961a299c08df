"""The progress bar of long commands: after two seconds, on a terminal, on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 2.0
"""Seconds before the bar appears."""


@contextmanager
def watched(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what shall be called with how many `what` are done, and of how many."""
    start = time.monotonic()
    bar: Progress | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and sys.stderr.isatty() and time.monotonic() - start > PATIENCE:
            bar = _start_bar(what, total)
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(what: str, total: int) -> "Progress":
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # tables go above the bar, but pipes stay as they are
    )
    bar.add_task(what, total=total)
    bar.start()
    return bar
