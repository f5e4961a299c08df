"""Time and memory of models, in each runtime, on one image.

Measurements are interleaved: all models in all runtimes take turns, so that load spikes affect all
equally. Memory is measured in separate processes: `python -m atrous.evaluation.timing`.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError
from atrous.images.photos import read_image, resized, shown
from atrous.images.pixels import read_pixels
from atrous.infer.runtime_selection import plain_runtime, processor, remember
from atrous.infer.runtimes.open import installed_runtimes_of
from atrous.infer.segmenter import Segmenter, load
from atrous.infer.upsample import logits_to_labels
from atrous.kernels import usable_cores
from atrous.progress import Progress, Track, silent, untracked

__all__ = ["Bench", "Place", "Speed", "Timing", "bench", "measure", "peak_memory"]

AGREEMENT = 0.99
"""Smallest share of the confident pixels that a chosen runtime labels as the plain runtime does.

On all pixels of CamVid's 101 validation images, OpenVINO's bf16 labels 99.8 % as fp32 does (99.5 %
in the worst image), int8 99.7 % (99.4 %) in each runtime; mIoU changes by at most 0.06 points.
"""

_CONFIDENT = 0.6
"""Probability above which a pixel of the plain runtime is confident; close calls may differ."""

_SLOW_START = ("compile", "tensorrt")
"""Parts of the names of runtimes that take a minute to start; `auto` never selects these."""

_STEP_ROUNDS = 7
_NOISE_SIZE = (360, 480)

_Key = TypeVar("_Key", str, "Place")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A runtime of a model, on one photo."""

    runtime: str
    precision: str
    seconds: float
    """Median of one photo: network, upsampling and argmax."""
    start: float
    """Seconds to load the model and to label the first photo."""
    agreement: float
    """Share of the confident pixels of the plain runtime that have the same label."""
    same_labels: float
    """Share of all pixels that have the plain runtime's label."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model on this machine: each runtime, and each step in the fastest one."""

    model: str
    precision: str
    size: tuple[int, int]
    """(H, W) of the photo."""
    processor: str
    threads: int
    runtimes: Sequence[Timing]
    missing: Mapping[str, str]
    """Requested runtimes that are unavailable, with the reason."""
    fastest: str
    """Runtime that `fastest` chose."""
    remembered: bool
    """Whether `auto` takes the fastest runtime from now on."""
    steps: Mapping[str, float]
    """Median seconds of each step from a JPEG file to the files written."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


class Speed(NamedTuple):
    """One image, in one runtime."""

    seconds: float
    """From the image to its labels: median of all rounds."""
    memory: int | None
    """Bytes, see `peak_memory`."""


class Place(NamedTuple):
    """A model in a runtime."""

    name: str
    """Name of the model."""
    runtime: str


def bench(
    model: Path,
    *,
    photo: Path | None = None,
    size: tuple[int, int] | None = None,
    runtimes: Sequence[str] = (),
    threads: int | None = None,
    rounds: int = 30,
    progress: Progress = silent,
) -> Bench:
    """Time each runtime of a model, and the steps around the network.

    Args:
        model: bundle or run folder.
        photo: photo to label; by default blurred noise.
        size: (H, W) that the photo is resized to.
        runtimes: runtimes to time; the others are compared with the first. By default all, and
            `auto` takes the fastest from then on.
        threads: of each runtime; by default as many as this process may run on.
        rounds: number of times that each runtime labels the photo.
        progress: called after each labelled photo.
    """
    threads = usable_cores() if threads is None else threads
    image = _image(load(model, threads, plain_runtime(model)), photo, size)
    names = runtimes or [
        name
        for name in installed_runtimes_of(model)
        if not any(part in name for part in _SLOW_START)
    ]
    timings, missing = time_runtimes(
        model, names, image, threads=threads, rounds=rounds, progress=progress
    )
    best = fastest(timings)
    segmenter = load(model, threads, best.runtime)
    return Bench(
        model=segmenter.runtime.model_name,
        precision=segmenter.metadata.precision,
        size=(image.shape[0], image.shape[1]),
        processor=processor(),
        threads=segmenter.runtime.threads,
        runtimes=timings,
        missing=missing,
        fastest=best.runtime,
        remembered=not runtimes and remember(model, threads, best.runtime),
        steps=_steps(segmenter, image),
    )


def time_runtimes(
    model: Path,
    runtimes: Sequence[str],
    image: NDArray[np.uint8],
    *,
    threads: int,
    rounds: int,
    progress: Progress = silent,
) -> tuple[list[Timing], dict[str, str]]:
    """Time each runtime of `model` on `image` (H, W, C); the first one must be available.

    Returns:
        The timings, and the runtimes that are unavailable, with the reason.
    """
    files = {Place(model.name, runtime): model for runtime in runtimes}
    opened, starts, errors = _open(files, threads, image)
    if runtimes[0] in errors:
        raise errors[runtimes[0]]
    plain = opened[Place(model.name, runtimes[0])]
    expected, confidence = plain.predict_with_confidence(image)
    confident = confidence >= min(_CONFIDENT, float(np.median(confidence)))
    calls = {place: partial(segmenter.predict, image) for place, segmenter in opened.items()}
    seconds = _interleaved(calls, rounds, progress)
    same = {place: segmenter.predict(image) == expected for place, segmenter in opened.items()}
    timings = [
        Timing(
            runtime=place.runtime,
            precision=segmenter.runtime.precision,
            seconds=median(seconds[place]),
            start=starts[place],
            agreement=float(np.mean(same[place][confident])),
            same_labels=float(np.mean(same[place])),
        )
        for place, segmenter in opened.items()
    ]
    return timings, {runtime: _reason(runtime, error) for runtime, error in errors.items()}


def fastest(timings: Sequence[Timing]) -> Timing:
    """Return the fastest runtime that agrees with the plain one, which is among them."""
    return min((t for t in timings if t.agreement >= AGREEMENT), key=lambda t: t.seconds)


def measure(
    files: Mapping[Place, Path],
    image: NDArray[np.uint8],
    *,
    threads: int,
    rounds: int,
    track: Track = untracked,
) -> tuple[dict[str, dict[str, Speed]], dict[str, str]]:
    """Measure time and memory of each of `files` on `image` (H, W, C).

    Args:
        files: the file that each runtime loads of each model.
        image: image to label.
        threads: of each runtime.
        rounds: number of times that each labels the image.
        track: shows the progress of each step.

    Returns:
        The speed of each model, by runtime; and what is unavailable, with the reason.
    """
    speeds: dict[str, dict[str, Speed]] = {place.name: {} for place in files}
    opened, _, errors = _open(files, threads, image)
    unavailable = {runtime: _reason(runtime, error) for runtime, error in errors.items()}
    calls = {place: partial(segmenter.predict, image) for place, segmenter in opened.items()}
    with track("images timed") as progress:
        seconds = _interleaved(calls, rounds, progress)
    del opened, calls  # frees their memory for the processes
    with track("processes measured") as progress:
        for done, (place, times) in enumerate(seconds.items(), start=1):
            size, memory = (image.shape[0], image.shape[1]), None
            try:
                memory = peak_memory(files[place], place.runtime, threads, size)
            except InputError as error:  # keeps the other numbers
                unavailable[f"{place.name} in {place.runtime}"] = str(error)
            speeds[place.name][place.runtime] = Speed(median(times), memory)
            progress(done, len(seconds))
    return speeds, unavailable


def peak_memory(path: Path, runtime: str, threads: int, size: tuple[int, int]) -> int | None:
    """Return the peak resident bytes of a new process that labels one image of `size` (H, W).

    They include Python, libraries, weights and activations. None on Windows, where Python cannot
    measure them.
    """
    numbers = map(str, (threads, *size))
    command = [sys.executable, "-m", "atrous.evaluation.timing", str(path), runtime, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"failed in a separate process, perhaps for lack of memory ({reason})")
    return int(done.stdout) or None


def most_resident() -> int:
    """Return the peak resident bytes of this process so far; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":  # getrusage would include the peak of the parent process
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _open(
    files: Mapping[Place, Path], threads: int, image: NDArray[np.uint8]
) -> tuple[dict[Place, Segmenter], dict[Place, float], dict[str, InputError | ImportError]]:
    """Open and warm up each of `files`: segmenters, their seconds to start, errors by runtime."""
    opened: dict[Place, Segmenter] = {}
    starts: dict[Place, float] = {}
    errors: dict[str, InputError | ImportError] = {}
    for place, path in files.items():
        start = time.perf_counter()
        try:
            segmenter = load(path, threads, place.runtime)
            segmenter.predict(image)
        except (InputError, ImportError) as error:
            errors[place.runtime] = error
        else:
            opened[place], starts[place] = segmenter, time.perf_counter() - start
    return opened, starts, errors


def _interleaved(
    calls: Mapping[_Key, Callable[[], object]], rounds: int, progress: Progress = silent
) -> dict[_Key, list[float]]:
    """Return the seconds of each call of each function, called in turn."""
    seconds: dict[_Key, list[float]] = {key: [] for key in calls}
    for count, key in enumerate(list(calls) * rounds, start=1):
        start = time.perf_counter()
        calls[key]()
        seconds[key].append(time.perf_counter() - start)
        progress(count, rounds * len(calls))
    return seconds


def _reason(runtime: str, error: InputError | ImportError) -> str:
    """Return one line about why a runtime is unavailable."""
    if isinstance(error, InputError):
        return str(error)
    return f'not installed: pip install "atrous[{runtime.partition(":")[0]}]"'


def _image(
    segmenter: Segmenter, photo: Path | None, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Return the photo in the model's bands, (H, W, C), or blurred noise."""
    if photo is not None:
        image, _ = read_pixels(photo, segmenter.reading([photo])[0])
    else:
        random = np.random.default_rng(0)
        image = random.integers(0, 256, (12, 16, segmenter.metadata.channels), dtype=np.uint8)
        size = size or _NOISE_SIZE
    return image if size is None else resized(image, size, Image.Resampling.BICUBIC)


def _steps(segmenter: Segmenter, image: NDArray[np.uint8]) -> dict[str, float]:
    """Return the median seconds of each step from a JPEG file to the files written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(shown(image)).save(path, quality=95)
        logits = segmenter.runtime(image[None])[0]
        result = segmenter(image)
        network: dict[str, Callable[[], object]] = {
            "network": lambda: segmenter.runtime(image[None]),
            "upsample and argmax": lambda: logits_to_labels(
                logits,
                segmenter.metadata.stride,
                image.shape[:2],
                segmenter.runtime.threads,
                aligned=segmenter.metadata.aligned,
            ),
        }
        if segmenter.batch_size((1, 1)) > 1:  # on a GPU, which makes the labels as well
            network = {"network and labels": lambda: segmenter.predict(image)}
        seconds = _interleaved(
            {
                "decode": lambda: read_image(path),
                **network,
                "encode and write": lambda: result.save(folder),
            },
            _STEP_ROUNDS,
        )
    return {name: median(times) for name, times in seconds.items()}


def _print_peak_memory() -> None:
    """Label a black image: arguments are the model, the runtime, threads, height and width."""
    model, runtime, *numbers = sys.argv[1:]
    threads, height, width = map(int, numbers)
    segmenter = load(Path(model), threads, runtime)
    segmenter.predict(np.zeros((height, width, segmenter.metadata.channels), np.uint8))
    print(most_resident())


if __name__ == "__main__":
    _print_peak_memory()
