"""How fast models label one image on this machine, and in how much memory, in each runtime.

A run folder goes to torch, and as a temporary float bundle to the runtimes of bundles; a bundle to
these alone. All models in all runtimes take turns, so that the machine's moods meet them alike.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError
from atrous.infer.runtimes import OF_BUNDLES, runtimes_of
from atrous.infer.segmenter import Segmenter, load
from atrous.infer.trial import in_turn, why_missing

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Names what is counted, and gives what shall be called with how many are done, and of how many."""


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
    models: Mapping[str, Path],
    runtimes: Sequence[str],
    image: NDArray[np.uint8],
    *,
    threads: int,
    rounds: int,
    watch: Watch,
) -> tuple[dict[str, dict[str, Speed]], dict[str, str]]:
    """Measure each model in each runtime on `image` (H, W, C).

    Args:
        models: run folders and bundles, by name.
        runtimes: names as `open_runtime` takes them.
        image: what is labelled.
        threads: how many each uses.
        rounds: how often each labels the image.
        watch: watches each step.

    Returns:
        Of each model its speed in each runtime that can be had, and why other numbers cannot.
    """
    speeds: dict[str, dict[str, Speed]] = {name: {} for name in models}
    with tempfile.TemporaryDirectory() as folder:
        files = _files(models, runtimes, Path(folder), watch)
        opened, missing = _opened(files, threads, image)
        with watch("images timed") as progress:
            seconds = in_turn(opened, image, rounds, progress)
        opened.clear()
        with watch("processes measured") as progress:
            for done, (place, times) in enumerate(seconds.items(), start=1):
                size, memory = (image.shape[0], image.shape[1]), None
                try:
                    memory = peak_memory(files[place], place.runtime, threads, size)
                except InputError as error:  # which shall not cost all other numbers
                    missing[f"{place.name} in {place.runtime}"] = str(error)
                speeds[place.name][place.runtime] = Speed(statistics.median(times), memory)
                progress(done, len(seconds))
    return speeds, missing


def _files(
    models: Mapping[str, Path], runtimes: Sequence[str], folder: Path, watch: Watch
) -> dict[Place, Path]:
    """What each runtime loads of each model; runs are exported into `folder`."""
    files: dict[Place, Path] = {}
    with watch("models exported") as progress:
        for done, (name, path) in enumerate(models.items(), start=1):
            forms = [path]
            if path.is_dir() and set(runtimes) & set(OF_BUNDLES):
                from atrous.export.graph import export_bundle

                # OpenVINO keeps what it compiled by the file's name: one name, one such file
                forms.append(folder / str(done) / "compared.onnx")
                export_bundle(path, forms[-1])
            for form in forms:
                taken = [runtime for runtime in runtimes if runtime in runtimes_of(form)]
                files |= {Place(name, runtime): form for runtime in taken}
            progress(done, len(models))
    return files


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
    command = [sys.executable, "-m", "atrous.compare.memory", str(path), runtime, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"failed in a process of its own, for want of memory maybe ({reason})")
    return int(done.stdout) or None
