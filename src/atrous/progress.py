"""Progress of long work: one protocol, which the command line shows as bars and lines."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Progress = Callable[[int, int | None], None]
"""Called with how much is done and of how much; None or 0 where the total is not known."""

Track = Callable[[str], AbstractContextManager[Progress]]
"""Names a step ("images") and yields what is called as it goes on."""

Notify = Callable[[str], None]
"""Called with a line that a person should read."""


def silent(done: int, total: int | None) -> None:
    """Show no progress."""


def untracked(step: str) -> AbstractContextManager[Progress]:
    """Show no progress of a step."""
    return nullcontext(silent)


def unheard(line: str) -> None:
    """Drop a line."""
