"""A map over threads that keeps the order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int | Callable[[], int],
) -> Generator[Result, None, None]:
    """Map `function` over `items` in `executor`: results in order, at most `ahead` at a time."""
    limit = ahead if callable(ahead) else lambda: ahead
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            while len(pending) > limit():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # the caller stopped early
        for future in pending:
            future.cancel()
