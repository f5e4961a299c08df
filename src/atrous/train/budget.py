"""A training of so many minutes: how many steps fit is decided while it goes on.

The first decision follows a few measured steps; later ones follow only where the training would end
too late, or much too early. Each is in schedule.json of the run folder before it takes effect, and
a resumed run takes those of its file at the same steps, so that it ends as if it had never stopped.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from msgspec import Meta, Struct

from atrous.decode import read_json
from atrous.errors import InputError
from atrous.files import write_json
from atrous.progress import Notify
from atrous.run import SCHEDULE, has_run
from atrous.train.recipe import Recipe

T = TypeVar("T")

UNDECIDED = 1 << 62
"""The number of steps before the first decision; a learning rate does not fall within it."""

_AROUND = 3.0
"""Seconds of the time for what the clock does not see: Python starts and ends."""
_AIM = 0.98
"""Part of the time that is planned; the rest is for the last checkpoint and for surprises."""
_LONGER, _MOST_LONGER = 0.5, 0.03
"""The last validation, after which no step can be left out, may take longer by this part of itself,
but no more than that part of the time."""
_TOO_EARLY = 0.93
"""An end before this part of the time is moved; so is one after the whole time."""
_SLACK = 0.1
"""Both may be off by this part of the time that is left, as there is time to decide again."""
_FIRST_STEPS, _FIRST_SHARE = 4, 0.1
"""Steps that are not measured, as caches fill and a GPU's graph is captured; fewer if they take
that part of the time."""
_MEASURED = 0.02
"""Part of the time that steps are measured before they count."""
_FEWEST = 8
"""Steps of a mean, if so many were measured: a single one may take long for no lasting reason."""
_WARM_UP = 10
"""The warm-up takes no more than this part, a tenth, of the steps."""
_APART = 10
"""Steps between reviews of several processes, which wait for each other then."""
_TRIALS, _TRIED = (1, 4, 16, 64), 0.01
"""Images of each process that are validated before the first step, so many after so many, until
that has taken this part of the time."""
_AGAIN, _LATE = 0.05, 0.75
"""A validation that takes over this part of the time is measured again, as other programs may have
slowed the first measurement: before a decision is changed, and after that part of the steps."""
_MOST_VALIDATION = 2
"""A validation that takes more than this part, half, of the time is refused."""


class Decision(Struct, kw_only=True, frozen=True):
    """How many steps a training has."""

    step: Annotated[int, Meta(ge=1)]
    """Steps that were done when it was taken."""
    num_steps: Annotated[int, Meta(ge=1)]
    warmup_steps: Annotated[int, Meta(ge=0)]
    seconds: float
    """Time of the training until then."""
    seconds_per_step: float
    """As measured lately, without validations."""


class Budget:
    """The time of a training, and the number of steps that fits into it."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        accelerator: Accelerator,
        clock: Callable[[], float],
        notify: Notify,
    ) -> None:
        """Take the decisions of the run in `out`, if there is one.

        Args:
            recipe: has `minutes`.
            out: the run folder.
            accelerator: the main process decides for all.
            clock: seconds since the start, what comes before the first step included.
            notify: called with a line on each decision.
        """
        self.recipe, self.out, self.accelerator = recipe, out, accelerator
        self.clock, self.notify = clock, notify
        self.total = max(0.0, 60 * recipe.minutes - _AROUND)
        self.path = out / SCHEDULE
        self.decisions: list[Decision] = []
        if has_run(out) and self.path.exists():
            fix = "start again in another folder"
            self.decisions = read_json(self.path, list[Decision], fix)
        self.recorded = self.decisions[-1].step if self.decisions else 0
        self.before: float | None = None  # seconds until the checkpoint of a resumed run
        self.offset = 0.0  # of `seconds` from the clock
        self.validating = 0.0  # seconds of all validations
        self.validations: list[tuple[float, float | None]] = []  # seconds of one, of a step then
        self.first_step: float | None = None  # seconds of one, at the first decision
        self.measure: Callable[[], None] | None = None  # the time of a validation
        self.measured_at = 0  # steps that were done then
        self.marks: list[float] = []  # seconds without validations, after each step since `begin`
        self.first: int | None = None  # index of the mark from which steps are measured

    def seconds(self) -> float:
        """Return the time of the training so far; what a kill has lost does not count."""
        return self.clock() + self.offset

    def begin(self) -> None:
        """Begin with the steps."""
        if self.before is not None:
            self.offset = self.before - self.clock()
        self.marks = [self.seconds() - self.validating]

    @contextmanager
    def validation(self, images: int, of: int) -> Iterator[None]:
        """Measure a validation of `images` images, where the split has `of`."""
        began = self.clock()
        yield
        took = self.clock() - began
        self.validating += took
        self.validations.append((took * of / images, self._seconds_per_step()))

    def per_validation(self) -> float:
        """Return the seconds of a validation: as many steps long as the median of those measured.

        A single measurement says little on a busy machine, but steps and validations slow alike.
        """
        if not self.validations:
            return 0.0
        now = self._seconds_per_step()
        if now is None:
            return median(seconds for seconds, _ in self.validations)
        first = self.first_step or now
        return median(seconds * now / (then or first) for seconds, then in self.validations)

    def trials(self, images: int) -> Iterator[list[int]]:
        """Yield indices of images whose validation tells, ever better, what that of all takes."""
        before = self.validating
        for number in _TRIALS:
            wanted = min(number * self.accelerator.num_processes, images)
            yield np.linspace(0, images - 1, wanted).astype(int).tolist()
            is_enough = wanted == images or self.validating - before > _TRIED * self.total
            if self._agreed(is_enough):
                return

    def check_validation(self) -> None:
        """Refuse a split whose validation leaves no time to train."""
        if self.per_validation() > self.total / _MOST_VALIDATION:
            raise InputError(
                f"minutes is {self.recipe.minutes:g}, {_clock(self.total)} without the start and "
                "the end of Python, and one validation takes about "
                f"{_clock(self.per_validation())} of them; give more, or a smaller split val"
            )

    def schedule(self, step: int) -> Recipe:
        """Return the recipe with the number of steps that holds after `step` steps."""
        taken = [decision for decision in self.decisions if decision.step <= step]
        if not taken:
            return replace(self.recipe, num_steps=UNDECIDED)
        num_steps, warmup_steps = taken[-1].num_steps, taken[-1].warmup_steps
        return replace(self.recipe, num_steps=num_steps, warmup_steps=warmup_steps)

    def review(self, step: int) -> bool:
        """Return whether the number of steps changes after `step`; called after each step."""
        self._mark()
        if step <= self.recorded:  # replayed: decided before the run was killed
            return any(decision.step == step for decision in self.decisions)
        if self.accelerator.num_processes > 1 and step % _APART:
            return False
        decision = self._agreed(self._decide(step))
        if self.measure and self._agreed(self._is_doubtful(step, decision)):
            self.measure()
            self.measured_at = step
            decision = self._agreed(self._decide(step))
        if decision is None:
            return False
        self.decisions.append(decision)
        if self.accelerator.is_main_process:
            write_json(self.path, msgspec.to_builtins(self.decisions))
            self.notify(self._line(decision))
        return True

    def _agreed(self, value: T) -> T:
        """Return what the main process has for `value`."""
        (value,) = broadcast_object_list([value])
        return value

    def _mark(self) -> None:
        self.marks.append(self.seconds() - self.validating)
        steps, taken = len(self.marks) - 1, self.marks[-1] - self.marks[0]
        if self.first is None and (steps >= _FIRST_STEPS or taken >= _FIRST_SHARE * self.total):
            self.first = steps

    def _seconds_per_step(self) -> float | None:
        """Return the mean over the later half of the measured time; None if that is short."""
        if self.first is None:
            return None
        measured = self.marks[-1] - self.marks[self.first]
        last = len(self.marks) - 1
        if last == self.first or measured < _MEASURED * self.total:
            return None
        start = bisect_left(self.marks, self.marks[-1] - measured / 2, lo=self.first)
        start = max(self.first, min(start, last - _FEWEST))
        return (self.marks[-1] - self.marks[start]) / (last - start)

    def _is_doubtful(self, step: int, decision: Decision | None) -> bool:
        """Return whether a validation should be measured again before a decision is taken."""
        if not self.decisions or self.per_validation() < _AGAIN * self.total:
            return False
        late = math.ceil(_LATE * self.decisions[-1].num_steps)
        return decision is not None or self.measured_at < late <= step

    def _decide(self, step: int) -> Decision | None:
        per_step = self._seconds_per_step()
        if per_step is None:
            return None
        if self.first_step is None:
            self.first_step = per_step
        seconds, validation = self.seconds(), self.per_validation()

        def end(num_steps: int) -> float:
            validations = _validations(step, num_steps, self.recipe.validate_every)
            return seconds + (num_steps - step) * per_step + validations * validation

        now = self.decisions[-1].num_steps if self.decisions else None
        slack = _SLACK * max(0, self.total - seconds)
        earliest, latest = _TOO_EARLY * self.total - slack, self.total + slack
        if now is not None and earliest <= end(now) <= latest:
            return None
        longer = min(_LONGER * validation, _MOST_LONGER * self.total)
        aim = _AIM * self.total - longer
        most = step + max(0, math.ceil((aim - seconds) / per_step))
        num_steps = max(step, step + bisect_right(range(step, most + 1), aim, key=end) - 1)
        if num_steps == now:
            return None
        return Decision(
            step=step,
            num_steps=num_steps,
            warmup_steps=min(self.recipe.warmup_steps, num_steps // _WARM_UP),
            seconds=round(seconds, 1),
            seconds_per_step=round(per_step, 4),
        )

    def _line(self, decision: Decision) -> str:
        before = ""
        if len(self.decisions) > 1:
            before = f" instead of {self.decisions[-2].num_steps:,}"
        return (
            f"step {decision.step:,}, after {_clock(decision.seconds)}: {decision.num_steps:,} "
            f"steps{before} fit into {self.recipe.minutes:g} min, at "
            f"{decision.seconds_per_step:.3g} s a step and {_clock(self.per_validation())} a "
            "validation"
        )


def _validations(step: int, num_steps: int, every: int) -> int:
    """Return the validations from `step` to the last step, both included; the last is always one.

    >>> _validations(5, 12, 5)
    3
    """
    return num_steps // every - (step - 1) // every + (num_steps % every > 0)


def _clock(seconds: float) -> str:
    """Return minutes and seconds.

    >>> _clock(75.4)
    '1:15'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"
