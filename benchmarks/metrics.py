"""Confusion beside torchmetrics' MulticlassConfusionMatrix, in turn; what other metrics take.

    python benchmarks/metrics.py                          # 171 classes, 513x513
    python benchmarks/metrics.py --classes 19 --size 1024 2048

torchmetrics is given the same labels as uint8 and as int64, without its checks of the values
(`validate_args=False`), which ours makes. Its matrix and ours are compared first. Memory is what
5,000 updates keep, and their peak. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import time
import tracemalloc

import numpy as np
import torch
from side_by_side import measure, print_environment
from torchmetrics.classification import MulticlassConfusionMatrix

from atrous.metrics import Boundary, Calibration, Confusion
from atrous.metrics.interval import compare, interval

IMAGES = 5000


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    print_environment(options.threads, "numpy", "torch", "torchmetrics")
    prediction, label = label_maps(options.size, options.classes)
    contenders, extra = updates(prediction, label, options.classes)
    seconds = measure(contenders | extra, options.rounds)
    for name, t in seconds.items():
        print(f"  {name:32} {1000 * t:7.2f} ms  median of {options.rounds}")
    ours, *theirs = (seconds[name] for name in contenders)
    result = {"size": options.size, "classes": options.classes, "threads": options.threads}
    result["milliseconds"] = {name: round(1000 * t, 3) for name, t in seconds.items()}
    result["times_faster"] = round(min(theirs) / ours, 2)
    print(f"  {min(theirs) / ours:.1f} times faster than the faster of torchmetrics' two")
    result |= many_images(prediction, label, options.classes)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--size", type=int, nargs=2, default=[513, 513], metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of torch; atrous uses one here")
    return parser.parse_args()


def label_maps(size, num_classes):
    """Blocks of 27 pixels, some ignored; a prediction 3 pixels off, 30 % wrong; both uint8."""
    random = np.random.default_rng(0)
    true = random.integers(0, num_classes, (size[0] // 27 + 1, size[1] // 27 + 1))
    other = random.integers(0, num_classes, true.shape)
    predicted = np.where(random.random(true.shape) < 0.3, other, true)
    true[random.random(true.shape) < 0.05] = 255
    label, prediction = (
        np.kron(blocks, np.ones((27, 27), int))[: size[0], : size[1]].astype(np.uint8)
        for blocks in (true, predicted)
    )
    return np.roll(prediction, 3, axis=1), label


def updates(prediction, label, num_classes):
    """One update of each: ours and torchmetrics' of the confusion matrix; our other metrics."""
    confusion = Confusion(num_classes)
    contenders = {"atrous uint8": lambda: confusion.update(prediction, label)}
    for dtype in (torch.uint8, torch.int64):
        metric = MulticlassConfusionMatrix(num_classes, ignore_index=255, validate_args=False)
        pair = [torch.from_numpy(array).to(dtype) for array in (prediction, label)]
        metric.update(*pair)
        confusion.update(prediction, label)
        assert (metric.compute().numpy() == confusion.matrix).all()
        confusion = Confusion(num_classes)
        contenders[f"torchmetrics {str(dtype)[6:]}"] = lambda m=metric, p=pair: m.update(*p)
    boundary, calibration = Boundary(num_classes), Calibration()
    confidence = np.random.default_rng(1).random(label.shape, dtype=np.float32)
    wide = prediction.astype(int), label.astype(int)
    extra = {
        "atrous int64": lambda: confusion.update(*wide),
        "Boundary (IoU and F)": lambda: boundary.update(prediction, label),
        "Calibration": lambda: calibration.update(confidence, prediction, label),
    }
    return contenders, extra


def many_images(prediction, label, num_classes):
    """What 5,000 updates keep and need at most, and how long the statistics of so many take."""
    one, other = Confusion(num_classes), Confusion(num_classes)
    tracemalloc.start()
    for _ in range(IMAGES):
        one.update(prediction, label)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"  {kept / IMAGES / 1e3:.2f} kB kept per image; peak {peak / 1e6:.1f} MB at {IMAGES:,}")
    other.update(np.roll(prediction, 1), label)
    counts = one.counts(), np.repeat(other.counts(), IMAGES, axis=0)
    times = {}
    for name, statistic in (
        ("interval", lambda: interval(counts[0])),
        ("compare", lambda: compare(*counts)),
    ):
        start = time.perf_counter()
        statistic()
        times[name] = round(time.perf_counter() - start, 3)
        print(f"  {name} of {IMAGES:,} images: {times[name]:.2f} s")
    return {"kilobytes_per_image": round(kept / IMAGES / 1e3, 2), "seconds": times}


if __name__ == "__main__":
    main()
