"""The one error that a person is shown."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: one line that names the file or option, what is wrong, and the fix."""


@contextmanager
def named(what: object, fix: str = "") -> Iterator[None]:
    """Turn a ValueError into an InputError that begins with what is at fault and ends in a fix."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{what}: {error}{fix and f'; {fix}'}") from None


@contextmanager
def about(what: object) -> Iterator[None]:
    """Begin the line of an InputError with the file or the sample that it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
