"""`atrous bench`: how fast this machine is with a model, in each runtime and in each step."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from atrous.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from atrous.evaluation.timing import Trial
    from atrous.infer.segmenter import Segmenter

_COMPILES = "compile"
"""What the names of runtimes hold that take a minute to start: `auto` never takes them."""


def bench(
    model: str = "camvid",
    /,
    *,
    photo: Path | None = None,
    size: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    runtime: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    threads: int | None = None,
    rounds: int = 30,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Measure this machine's speed with a model: each runtime, each step.

    The fastest runtime that labels as the plain one does is remembered: `--runtime auto`, which
    other commands use by default, takes it from then on.

    Args:
        model: Name of a shipped model, a bundle (.onnx), or a run folder.
        photo: Photo to measure with; by default a made-up one.
        size: Height and width that it is resized to; by default 360 480 for the made-up one.
        runtime: Measure these only, and remember nothing.
        threads: How many to use; by default as many as this process may run on.
        rounds: How often each runtime labels the photo.
        json_output: Print one JSON document instead of the tables.
    """
    # numpy and Pillow, which `atrous bench --help` shall not pay for
    from atrous.cli.convert import fetched
    from atrous.cli.progress import watched
    from atrous.evaluation.timing import fastest, try_runtimes
    from atrous.infer.bundle import find_model
    from atrous.infer.runtime_selection import remember
    from atrous.infer.runtimes.open import runtimes_of
    from atrous.infer.segmenter import load
    from atrous.kernels import usable_cores

    if rounds < 1 or min(size or (1, 1)) < 1:
        raise InputError("--rounds and --size take numbers of 1 or more")
    path = find_model(fetched(model))
    threads = usable_cores() if threads is None else threads
    first = load(path, threads, "torch" if path.is_dir() else "onnxruntime")
    image = _image(first, photo, size)
    names = runtime or [name for name in runtimes_of(path) if _COMPILES not in name]
    with watched("photos") as progress:
        trials, missing = try_runtimes(
            path, names, image, threads=threads, rounds=rounds, progress=progress
        )
    best = fastest(trials)
    segmenter = load(path, threads, best.runtime)
    steps = _steps(segmenter, image)
    kept = not runtime and remember(path, threads, best.runtime)
    document = {
        **_about(segmenter, image),
        "runtimes": [asdict(trial) for trial in trials],
        "missing": missing,
        "fastest": best.runtime,
        "remembered": kept,
        "steps": steps,
    }
    if json_output:
        print(json.dumps(document, indent=2))
        return
    _print(document, trials, best)
    print(_conclusion(best, kept, bool(runtime)))
    print(f"next: {_next(model, path.is_dir())}")


def _image(
    segmenter: "Segmenter", photo: Path | None, size: tuple[int, int] | None
) -> "NDArray[np.uint8]":
    """Return the photo as the model takes it, (H, W, C), or blurred noise."""
    import numpy as np
    from PIL import Image

    from atrous.images.photos import resized
    from atrous.images.pixels import read_pixels

    if photo is not None:
        image, _ = read_pixels(photo, segmenter.reading([photo])[0])
    else:
        random = np.random.default_rng(0)
        image = random.integers(0, 256, (12, 16, segmenter.metadata.channels), dtype=np.uint8)
        size = size or (360, 480)
    return image if size is None else resized(image, size, Image.Resampling.BICUBIC)


def _steps(segmenter: "Segmenter", image: "NDArray[np.uint8]") -> dict[str, float]:
    """Return the median seconds of each step from a JPEG file to the files written."""
    from PIL import Image

    from atrous.images.photos import read_image, shown
    from atrous.infer.upsample import photo_labels

    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(shown(image)).save(path, quality=95)
        logits = segmenter.runtime(image[None])[0]
        result = segmenter(image)
        steps: dict[str, Callable[[], object]] = {
            "decode": lambda: read_image(path),
            "network": lambda: segmenter.runtime(image[None]),
            "upsample and argmax": lambda: photo_labels(
                logits, segmenter.metadata.stride, image.shape[:2], segmenter.runtime.threads
            ),
            "encode and write": lambda: result.save(folder),
        }
        for _ in range(7):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def _about(segmenter: "Segmenter", image: "NDArray[np.uint8]") -> dict[str, Any]:
    """Return what was measured, and on what."""
    from atrous.infer.runtime_selection import processor

    return {
        "model": segmenter.runtime.model_name,
        "precision": segmenter.metadata.precision,
        "size": list(image.shape[:2]),
        "processor": processor(),
        "threads": segmenter.runtime.threads,
    }


def _print(document: dict[str, Any], trials: "list[Trial]", best: "Trial") -> None:
    height, width = document["size"]
    print(f"{document['model']} ({document['precision']}), one photo of {width}x{height}")
    from atrous.text import amount

    print(f"{document['processor']}, {amount(document['threads'], 'thread')}")
    print(f"\n  {'runtime':<24}{'ms':>8}{'photos/s':>10}{'start s':>9}{'same labels':>14}")
    for trial in trials:
        numbers = f"{1000 * trial.seconds:8.1f}{1 / trial.seconds:10.1f}{trial.start:9.2f}"
        mark = "  <- fastest" if trial is best else ""
        print(f"  {trial.runtime:<24}{numbers}{100 * trial.agreement:12.2f} %{mark}")
    for name, reason in document["missing"].items():
        print(f"  {name:<24}{shorten(reason, 54)}")
    print(f"\n  {'step, in ' + best.runtime:<36}{'ms':>8}")
    for name, seconds in document["steps"].items():
        print(f"  {name:<36}{1000 * seconds:8.1f}")
    print()


def _next(model: str, is_run: bool) -> str:
    if is_run:
        return f"atrous export {model} --int8 (bundles are several times faster)"
    return "atrous segment PHOTO" + f" --model {model}" * (model != "camvid")


def _conclusion(best: "Trial", kept: bool, chosen: bool) -> str:
    """Say what `auto` takes from now on, and why."""
    from atrous.evaluation.timing import AGREEMENT

    if chosen:
        return "auto stays as it was; to let it take the fastest: atrous bench without --runtime"
    if not kept:
        return f"auto does not take it: the cache cannot be written; use --runtime {best.runtime}"
    return (
        f"auto takes {best.runtime} from now on for this model and number of threads: the\n"
        f"fastest that gives {100 * AGREEMENT:.0f} % of the sure pixels the plain runtime's label"
    )
