"""`atrous segment FOLDER` beside the bare runtime: photos a second, in turn.

    python benchmarks/pipeline.py                           # photos 480x360, the shipped model
    python benchmarks/pipeline.py --size 3000 4000 --photos 8
    python benchmarks/pipeline.py --folder photos/ --model mine.onnx

Bare: the same runtime, called with images that are decoded already, the better of one call at a
time with all threads and as many calls at a time as `segment` makes; labels and files are left out.
Pipeline: decoding, network, labels, and the three files of each photo. Both go over the whole
folder, in turn. `share` is of the rates; `processor_share` is of the processor time that they take
with several calls, which other programs on the machine change less. Then the processor time of each
step on one photo. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import measure, print_environment

from atrous.cli.segment import PHOTOS_AT_A_TIME
from atrous.errors import InputError
from atrous.images.label_maps import write_label
from atrous.images.photos import IMAGE_SUFFIXES, read_image
from atrous.infer.segmenter import load
from atrous.infer.upsample import logits_to_labels
from atrous.kernels import usable_cores


def main():
    options = parse()
    threads = options.threads or usable_cores()
    print_environment(threads, options.runtime.partition(":")[0], "numpy", "pillow")
    with tempfile.TemporaryDirectory() as folder:
        photos = given(options) or generate(Path(folder) / "in", options.photos, options.size)
        out = Path(folder) / "out"
        many = load(options.model, threads, options.runtime, PHOTOS_AT_A_TIME)
        single = load(options.model, threads, options.runtime)
        images = [read_image(path) for path in photos]
        counter = itertools.count()  # of new folders, since replacing a file takes longer
        contenders = {
            "bare, one call": lambda: bare(single, images),
            f"bare, {many.calls} calls": lambda: bare(many, images),
            "pipeline": lambda: pipeline(many, photos, out / str(next(counter))),
        }
        spent = {name: [] for name in contenders}
        contenders = {name: clocked(call, spent[name]) for name, call in contenders.items()}
        seconds = measure(contenders, options.rounds, warm_up=1)
        steps = step_milliseconds(many, photos[0], out)
    rates = {name: len(photos) / whole for name, whole in seconds.items()}
    processor = {name: statistics.median(times) / len(photos) for name, times in spent.items()}
    share = rates["pipeline"] / max(rate for name, rate in rates.items() if name != "pipeline")
    processor_share = processor[f"bare, {many.calls} calls"] / processor["pipeline"]
    print(f"{many.description}, photos of {images[0].shape[1]}x{images[0].shape[0]}")
    for name, rate in rates.items():
        took = f"{1000 * processor[name]:8.2f} ms of processor time a photo"
        print(f"  {name:24} {rate:8.2f} photos/s {took}  median of {options.rounds}")
    print(f"  the pipeline runs at {100 * share:.1f} % of the bare runtime's rate")
    print(f"  of its processor time, {100 * processor_share:.1f} % is the bare runtime's")
    for name, milliseconds in steps.items():
        print(f"  {name:24} {milliseconds:8.2f} ms of one core")
    result = {"model": many.description, "threads": threads, "photos": len(photos)}
    result |= {"image": list(images[0].shape[:2]), "photos_per_second": rounded(rates)}
    result |= {"share": round(share, 3), "processor_share": round(processor_share, 3)}
    print(json.dumps({**result, "milliseconds": rounded(steps)}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="camvid", help="shipped name or bundle")
    parser.add_argument("--runtime", default="onnxruntime", help="as of atrous segment")
    parser.add_argument("--folder", type=Path, help="of photos; by default they are generated")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), help="height width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="by default all that this process may use")
    return parser.parse_args()


def given(options):
    if options.folder is None:
        return []
    paths = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return paths[: options.photos]


def generate(folder, count, size):
    """JPEGs (H, W) of coloured areas with a little noise, which compress as photos do."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{index:04}.jpg" for index in range(count)]
    for path in paths:
        small = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        areas = Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)
        noise = random.integers(0, 24, (*size, 3), dtype=np.uint8)
        Image.fromarray(np.asarray(areas) // 2 + 64 + noise).save(path, quality=92)
    return paths


def bare(segmenter, images):
    with ThreadPoolExecutor(segmenter.calls) as threads:
        for _ in threads.map(lambda image: segmenter.runtime(image[None]), images):
            pass


def pipeline(segmenter, photos, out):
    def save(outcome):
        path, result = outcome
        if isinstance(result, InputError):
            raise result
        return result.save(out, path.name)

    for _ in segmenter.map(save, photos):
        pass


def clocked(call, spent):
    """Return `call`, with its processor time in seconds, of all threads, appended to `spent`."""

    def timed():
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)

    return timed


def step_milliseconds(segmenter, photo, out):
    """The median processor time of each step of one photo, in its thread."""
    image = read_image(photo)
    result = segmenter(photo)
    logits = segmenter.runtime(image[None])[0]
    overlay = result.overlay()
    stride = segmenter.metadata.stride
    counter = itertools.count()
    steps = {
        "decoding": lambda: read_image(photo),
        "network": lambda: segmenter.runtime(image[None]),
        "labels": lambda: logits_to_labels(logits, stride, image.shape[:2], threads=1),
        "labels file": lambda: write_label(
            out / f"{next(counter)}.png", result.labels, result.taxonomy, flush=False
        ),
        "overlay": result.overlay,
        "overlay file": lambda: overlay.save(out / f"{next(counter)}.jpg", quality=90),
        "coverage": result.to_dict,
        "all files": lambda: result.save(out, str(next(counter))),
    }
    return {name: 1000 * processor_time(step) for name, step in steps.items()}


def processor_time(step, repeats=9):
    spent = []
    for _ in range(repeats):
        start = time.thread_time()
        step()
        spent.append(time.thread_time() - start)
    return statistics.median(spent)


def rounded(numbers):
    return {name: round(number, 2) for name, number in numbers.items()}


if __name__ == "__main__":
    main()
