"""Runtimes tried on one photo, in turn, so that the machine's moods meet all of them alike."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.segmenter import Segmenter, load
from atrous.progress import Progress

Key = TypeVar("Key")

AGREEMENT = 0.99
"""The part of the sure pixels that a runtime must label as the plain one does, to be chosen.

Of all pixels of CamVid's 101 validation images, OpenVINO's bf16 labels 99.7 % as fp32 (99.4 % in
the worst image), and its int8 99.7 % as onnxruntime's int8; the mIoU moves by 0.05 points at most.
"""

SURE = 0.6
"""The probability above which the plain runtime counts as sure: close calls may fall either way."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A runtime, as it was measured."""

    runtime: str
    precision: str
    seconds: float
    """Median of one photo: network, upsampling and argmax."""
    start: float
    """Seconds to load the model and to label the first photo."""
    agreement: float
    """The part of the pixels that the plain runtime is sure of whose label is the same."""


def try_runtimes(
    model: Path,
    names: Sequence[str],
    image: NDArray[np.uint8],
    *,
    threads: int,
    rounds: int,
    progress: Progress,
) -> tuple[list[Trial], dict[str, str]]:
    """Measure the runtimes `names` of `model` on `image` (H, W, C).

    Args:
        model: a bundle or a run folder.
        names: the first is the plain one, that others are compared with.
        image: the photo.
        threads: how many each uses.
        rounds: how often each labels the photo.
        progress: called with how many calls are done, and of how many.

    Returns:
        The trials, and why each of the other runtimes cannot be had here.

    Raises:
        InputError: the plain runtime cannot be had.
    """
    opened: dict[str, Segmenter] = {}
    missing: dict[str, str] = {}
    starts: dict[str, float] = {}
    for name in names:
        start = time.perf_counter()
        try:
            opened[name] = load(model, threads, name)
        except (InputError, ImportError) as error:
            if name == names[0]:
                raise
            missing[name] = why_missing(name, error)
        else:
            opened[name].predict(image)
            starts[name] = time.perf_counter() - start
    expected, confidence = opened[names[0]].predict_with_confidence(image)
    sure = confidence >= min(SURE, float(np.median(confidence)))
    seconds = in_turn(opened, image, rounds, progress)
    trials = [
        Trial(
            runtime=name,
            precision=segmenter.runtime.precision,
            seconds=statistics.median(seconds[name]),
            start=starts[name],
            agreement=float(np.mean((segmenter.predict(image) == expected)[sure])),
        )
        for name, segmenter in opened.items()
    ]
    return trials, missing


def why_missing(runtime: str, error: InputError | ImportError) -> str:
    """Say why a runtime cannot be had, in one line."""
    if isinstance(error, InputError):
        return str(error)
    return f'not installed: pip install "atrous[{runtime.partition(":")[0]}]"'


def in_turn(
    opened: Mapping[Key, Segmenter],
    image: NDArray[np.uint8],
    rounds: int,
    progress: Progress,
) -> dict[Key, list[float]]:
    """Return the seconds of each call of each, on `image` (H, W, C)."""
    seconds: dict[Key, list[float]] = {name: [] for name in opened}
    for count, name in enumerate(list(opened) * rounds, start=1):
        start = time.perf_counter()
        opened[name].predict(image)
        seconds[name].append(time.perf_counter() - start)
        progress(count, rounds * len(opened))
    return seconds


def fastest(trials: Sequence[Trial]) -> Trial:
    """Return the fastest of those that agree with the plain one, which is among them."""
    return min((t for t in trials if t.agreement >= AGREEMENT), key=lambda trial: trial.seconds)
