"""`atrous bench`: how fast this machine is with a model, in each runtime and in each step."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

from atrous.cli.options import Count, Json, Size
from atrous.cli.progress import resolved, track
from atrous.evaluation import timing
from atrous.report.tables import Table
from atrous.text import amount


def bench(
    model: str = "camvid",
    /,
    *,
    photo: Path | None = None,
    size: Size | None = None,
    runtime: tuple[str, ...] = (),
    threads: int | None = None,
    rounds: Count = 30,
    json_output: Json = False,
) -> None:
    """Measure this machine's speed with a model: each runtime, each step.

    The fastest runtime with the labels of the plain one is remembered. From then on, it is what
    `--runtime auto` means, the default of `atrous segment`; `evaluate` and `compare` keep theirs.

    Args:
        model: Name of a shipped or published model, hf://OWNER/NAME, a bundle (.onnx), or a
            run folder.
        photo: Photo to measure with; by default a made-up one.
        size: Height and width that the photo is resized to; by default 360 480 for the made-up one.
        runtime: Measure these only, and remember nothing.
        threads: Threads of each runtime; by default as many as this process may run on.
        rounds: Number of times that each runtime labels the photo.
        json_output: Print one JSON document instead of the tables.
    """
    path = resolved(model)
    with track("photos") as progress:
        result = timing.bench(
            path,
            photo=photo,
            size=size,
            runtimes=runtime,
            threads=threads,
            rounds=rounds,
            progress=progress,
        )
    if json_output:
        print(json.dumps(result.to_dict(), indent=2))
        return
    print("\n".join(_lines(result)))
    print(_conclusion(result, chosen=bool(runtime)))
    next_step = f"segment PHOTO{f' --model {model}' * (model != 'camvid')}"
    if path.is_dir():
        next_step = f"export {model} --int8 (bundles are several times faster)"
    print(f"next: atrous {next_step}")


def _lines(bench: timing.Bench) -> Iterator[str]:
    height, width = bench.size
    yield f"{bench.model} ({bench.precision}), one photo of {width}x{height}"
    yield f"{bench.processor}, {amount(bench.threads, 'thread')}\n"
    columns = {
        "ms": [f"{1000 * each.seconds:8.1f}" for each in bench.runtimes],
        "photos/s": [f"{1 / each.seconds:8.1f}" for each in bench.runtimes],
        "start s": [f"{each.start:7.2f}" for each in bench.runtimes],
        "same labels": [f"{100 * each.same_labels:6.2f} %" for each in bench.runtimes],
        "": ["<- fastest" * (each.runtime == bench.fastest) for each in bench.runtimes],
    }
    names = [each.runtime for each in bench.runtimes]
    yield Table(names=names, columns=columns, heading="runtime", left=[""]).to_text()
    plain = bench.runtimes[0]
    yield f"  same labels: of all pixels, as {plain.runtime} in {plain.precision} labels them"
    for name, reason in bench.missing.items():
        yield f"  {name}: {shorten(reason, 76 - len(name))}"
    steps = {"ms": [f"{1000 * seconds:8.1f}" for seconds in bench.steps.values()]}
    heading = f"step, in {bench.fastest}"
    yield "\n" + Table(names=list(bench.steps), columns=steps, heading=heading).to_text() + "\n"


def _conclusion(bench: timing.Bench, *, chosen: bool) -> str:
    """Say which runtime `auto` takes from now on, and why."""
    if chosen:
        return "auto stays as it was; to let it take the fastest: atrous bench without --runtime"
    if not bench.remembered:
        return f"auto does not take it: the cache cannot be written; use --runtime {bench.fastest}"
    return (
        f"auto takes {bench.fastest} from now on for this model and number of threads: the\n"
        "fastest with the plain runtime's label "
        f"on {100 * timing.AGREEMENT:.0f} % of the confident pixels"
    )
