"""Low-resolution logits to labels, beside F.interpolate and argmax, in turn.

    python benchmarks/upsampling.py                       # all four cases below
    python benchmarks/upsampling.py --case noise
    python benchmarks/upsampling.py --logits mine.npy --size 513 513   # (K, h, w) float32

The cases: `photo`, 11 classes, 90x120 to 360x480, of the shipped model on the demo photo. `182`,
182 classes, 65x65 to 513x513, of that model, since no network of so many classes ships: its own
11 planes and 171 more, each one of the 11 mirrored and rolled at random, and lowered by --gap. In
the shipped model's own logits the winner is 5.7 above the second and 9.3 above the middle of the
others (medians); a gap of 0 lets all 182 compete everywhere, which no network's do. `noise`: normal
noise of that shape, the hardest. `noise11`: of the photo's shape.

Torch has the logits as its own tensor, contiguous and (as a network may give them) channels-last.
Labels are compared with the contiguous torch's first. The memory is what a fresh process of each
holds at its highest above what it holds before the call, with its libraries warm; from /proc, so on
Linux only. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import measure, peak, print_environment
from torch.nn import functional as F

import atrous
from atrous.infer.upsample import upsample_argmax, upsample_argmax_confidence
from atrous.kernels import usable_cores
from atrous.kernels.upsample import upsample_reference

PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "street.jpg"
CASES = ("photo", "182", "noise", "noise11")


def main():
    options = parse()
    print_environment(options.threads, "numpy", "torch")
    result = {"threads": options.threads}
    if options.logits:
        result["logits"] = compare(np.load(options.logits), tuple(options.size), options)
    for case in () if options.logits else options.case:
        gaps = options.gap if case == "182" else [None]
        for gap in gaps:
            name = case if gap is None else f"{case}, gap {gap:g}"
            print(name)
            result[name] = compare(*case_of(case, gap), options)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--gap", nargs="+", type=float, default=[8, 4, 0], help="logits")
    parser.add_argument("--logits", type=Path, help=".npy file, instead of the cases")
    parser.add_argument("--size", type=int, nargs=2, default=[513, 513], metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_cores())
    return parser.parse_args()


def case_of(case, gap):
    """The logits (K, h, w) of a case, and the size of its labels."""
    random = np.random.default_rng(0)
    if case == "photo":
        return logits_of_photo((360, 480)), (360, 480)
    if case == "noise11":
        return random.normal(size=(11, 90, 120)).astype(np.float32), (360, 480)
    if case == "noise":
        return random.normal(size=(182, 65, 65)).astype(np.float32), (513, 513)
    return many_classes(logits_of_photo((260, 260)), gap, random), (513, 513)


def logits_of_photo(size):
    with Image.open(PHOTO) as photo:
        image = np.asarray(photo.convert("RGB").resize(size[::-1]))
    return atrous.load("camvid").runtime(image[None])[0]


def many_classes(logits, gap, random):
    """The 11 planes (11, h, w), and 171 more like them, lower by `gap`: (182, h, w)."""
    planes = list(logits)
    for source in random.integers(0, len(logits), 182 - len(logits)):
        plane = logits[source][:: random.choice([-1, 1]), :: random.choice([-1, 1])]
        planes.append(np.roll(plane, random.integers(0, 65, 2), (0, 1)) - np.float32(gap))
    return np.ascontiguousarray(planes)


def compare(logits, size, options):
    """Time all on `logits` (K, h, w), and take their memory."""
    torch.set_num_threads(options.threads)
    calls = {name: prepare(name, logits, size, options.threads) for name in PREPARE}
    differ = int((calls["atrous"]() != calls["torch"]()[0].numpy()).sum())
    single = single_share(logits)
    slow = {"numpy reference": calls.pop("numpy reference")}
    # torch's threads spin for a while after a call; the next shall not feel it
    seconds = measure(calls, options.rounds, 3, pause=0.02) | measure(slow, 3, warm_up=0)
    memory = {name: memory_of(name, logits, size, options.threads) for name in seconds}
    for name, t in seconds.items():
        print(f"  {name:24} {1000 * t:9.3f} ms  {memory[name] / 2**20:7.1f} MiB")
    ratio = {name: round(t / seconds["atrous"], 1) for name, t in seconds.items()}
    print(f"  {ratio['torch']:.1f} times faster; {differ} of {size[0] * size[1]} labels differ;")
    print(f"  {100 * single:.0f} % of the cells have one candidate")
    return {
        "milliseconds": {name: round(1000 * t, 3) for name, t in seconds.items()},
        "extra_mib": {name: round(extra / 2**20, 1) for name, extra in memory.items()},
        "times_faster": ratio["torch"],
        "differ": differ,
        "single_cells": round(single, 3),
    }


def prepare(name, logits, size, threads):
    return PREPARE[name](logits, size, threads)


def with_torch(logits, size, threads, layout, confidence):
    torch.set_num_threads(threads)
    batch = torch.from_numpy(logits)[None].contiguous(memory_format=layout)

    def call():
        with torch.inference_mode():
            full = F.interpolate(batch, size, mode="bilinear", align_corners=False)
            return full.softmax(1).max(1) if confidence else full.argmax(1)

    return call


def with_atrous(logits, size, threads, function):
    return partial(function, logits, size, threads)


PREPARE = {
    "atrous": partial(with_atrous, function=upsample_argmax),
    "torch": partial(with_torch, layout=torch.contiguous_format, confidence=False),
    "torch, channels-last": partial(with_torch, layout=torch.channels_last, confidence=False),
    "atrous, confidence": partial(with_atrous, function=upsample_argmax_confidence),
    "torch, confidence": partial(with_torch, layout=torch.contiguous_format, confidence=True),
    "numpy reference": lambda logits, size, _: partial(upsample_reference, logits, size, size),
}


def memory_of(name, logits, size, threads):
    with get_context("spawn").Pool(1) as process:
        return process.apply(peak_extra, (name, logits, size, threads))


def peak_extra(name, logits, size, threads):
    """The `peak` of a call, whose libraries are warm."""
    prepare(name, np.zeros((2, 8, 8), np.float32), (16, 16), threads)()
    return peak(prepare(name, logits, size, threads))


def single_share(logits):
    """The fraction of cells that one class alone can win."""
    corners = [logits[:, y : y - 1 or None, x : x - 1 or None] for y in (0, 1) for x in (0, 1)]
    floor = np.minimum.reduce(corners).max(0)  # (h - 1, w - 1)
    return float(((np.maximum.reduce(corners) >= floor).sum(0) == 1).mean())


if __name__ == "__main__":
    main()
