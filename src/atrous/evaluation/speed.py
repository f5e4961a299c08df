"""How fast models label one image on this machine, and in how much memory, in each runtime.

A run folder goes to torch, and as a temporary float bundle to the runtimes of bundles; a bundle to
these alone. All models in all runtimes take turns, so that the machine's moods meet them alike.
"""

import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.evaluation.timing import in_turn, why_missing
from atrous.infer.segmenter import Segmenter, load
from atrous.progress import Track


class Speed(NamedTuple):
    """Of one image, in one runtime."""

    seconds: float
    """From the image to its labels: the median of all rounds."""
    memory: int | None
    """See `peak_memory`."""


class Place(NamedTuple):
    """A model in a runtime."""

    name: str
    """Of the model."""
    runtime: str


def measure(
    files: Mapping[Place, Path],
    image: NDArray[np.uint8],
    *,
    threads: int,
    rounds: int,
    track: Track,
) -> tuple[dict[str, dict[str, Speed]], dict[str, str]]:
    """Measure each of `files` on `image` (H, W, C).

    Args:
        files: what each runtime loads of each model.
        image: what is labelled.
        threads: how many each uses.
        rounds: how often each labels the image.
        track: shows each step.

    Returns:
        Of each model its speed in each runtime that can be had, and why other numbers cannot.
    """
    speeds: dict[str, dict[str, Speed]] = {place.name: {} for place in files}
    opened, missing = _opened(files, threads, image)
    with track("images timed") as progress:
        seconds = in_turn(opened, image, rounds, progress)
    opened.clear()
    with track("processes measured") as progress:
        for done, (place, times) in enumerate(seconds.items(), start=1):
            size, memory = (image.shape[0], image.shape[1]), None
            try:
                memory = peak_memory(files[place], place.runtime, threads, size)
            except InputError as error:  # which shall not cost all other numbers
                missing[f"{place.name} in {place.runtime}"] = str(error)
            speeds[place.name][place.runtime] = Speed(statistics.median(times), memory)
            progress(done, len(seconds))
    return speeds, missing


def _opened(
    files: Mapping[Place, Path], threads: int, image: NDArray[np.uint8]
) -> tuple[dict[Place, Segmenter], dict[str, str]]:
    """Open and warm up what can be had; of other runtimes say why not."""
    opened: dict[Place, Segmenter] = {}
    missing: dict[str, str] = {}
    for place, path in files.items():
        try:
            opened[place] = load(path, threads, place.runtime)
            opened[place].predict(image)
        except (InputError, ImportError) as error:
            missing[place.runtime] = why_missing(place.runtime, error)
    return opened, missing


def peak_memory(path: Path, runtime: str, threads: int, size: tuple[int, int]) -> int | None:
    """Return the most bytes that a new process holds when it labels one image of `size` (H, W).

    All of the process counts: Python, the libraries, the weights, what the network computes.

    Returns:
        The bytes; None on Windows, where Python cannot tell.

    Raises:
        InputError: the process ended, mostly since there was not enough memory.
    """
    numbers = map(str, (threads, *size))
    command = [sys.executable, "-m", "atrous.evaluation.memory", str(path), runtime, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"failed in a process of its own, for want of memory maybe ({reason})")
    return int(done.stdout) or None
