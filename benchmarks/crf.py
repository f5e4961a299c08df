"""The dense CRF beside pydensecrf2, on the same logits and photo, in turn.

    python benchmarks/crf.py                              # 500x375, 21 classes, 10 iterations
    python benchmarks/crf.py --classes 182 --size 513 513 --crf deeplab --rounds 3

The photo is the demo's. The logits are the shipped model's of it, upsampled; for classes beyond its
11 there is one of its planes each, rolled at random and lowered by 4. Both get full-size logits and
give full-size probabilities; both build their lattices in each call, as each photo needs. Memory is
what a fresh process of each holds at its highest above what it holds before the call; from /proc,
so on Linux only. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from side_by_side import measure, peak, print_environment

import atrous
from atrous.infer.crf import CRFS, dense_crf
from atrous.infer.upsample import upsample_logits
from atrous.kernels import usable_cores

PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "street.jpg"


def main():
    options = parse()
    print_environment(options.threads, "numpy", "pydensecrf2")
    logits, image = photo(tuple(options.size), options.classes)
    result = {"threads": options.threads, "size": options.size, "classes": options.classes}
    for name in options.crf:
        crf = replace(CRFS[name], iterations=options.iterations)
        print(name)
        result[name] = compare(logits, image, crf, options)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[375, 500], metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--crf", nargs="+", choices=CRFS, default=list(CRFS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=usable_cores())
    return parser.parse_args()


def photo(size, classes):
    """The logits (K, H, W) and the image (H, W, 3)."""
    with Image.open(PHOTO) as opened:
        image = np.array(opened.convert("RGB").resize(size[::-1]))
    model = atrous.load("camvid", runtime="onnxruntime")
    planes = list(model.runtime(image[None])[0])  # (h, w) each
    random = np.random.default_rng(0)
    for source in random.integers(0, len(planes), max(0, classes - len(planes))):
        rolled = np.roll(planes[source], random.integers(0, 65, 2), (0, 1))
        planes.append(rolled - np.float32(4))
    return upsample_logits(np.stack(planes[:classes]), model.metadata.stride, size), image


def compare(logits, image, crf, options):
    """Time both, take their memory, and say how far they are apart."""
    contenders = {
        "atrous": partial(dense_crf, logits, image, crf, options.threads),
        "atrous, 1 thread": partial(dense_crf, logits, image, crf, 1),
        "pydensecrf2": partial(peer, logits, image, crf),
    }
    ours, theirs = contenders["atrous"](), contenders["pydensecrf2"]()
    differ = int((ours.argmax(0) != theirs.argmax(0)).sum())
    distance = float(np.abs(ours - theirs).max())
    seconds = measure(contenders, options.rounds, warm_up=1)
    memory = {name: memory_of(call) for name, call in contenders.items()}
    for name, t in seconds.items():
        print(f"  {name:18} {1000 * t:8.0f} ms  {memory[name] / 2**20:7.0f} MiB")
    ratio = seconds["pydensecrf2"] / seconds["atrous"]
    print(f"  {ratio:.1f} times faster; {differ} of {image[..., 0].size} labels differ,")
    print(f"  and probabilities by {distance:.1g} at most")
    return {
        "milliseconds": {name: round(1000 * t, 1) for name, t in seconds.items()},
        "extra_mib": {name: round(extra / 2**20) for name, extra in memory.items()},
        "times_faster": round(ratio, 2),
        "differ": differ,
        "distance": distance,
    }


def peer(logits, image, crf):
    """What `dense_crf` computes, by pydensecrf2."""
    classes, height, width = logits.shape
    field = DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(-logits.reshape(classes, -1))
    field.addPairwiseGaussian(sxy=crf.distance, compat=crf.smoothness)
    field.addPairwiseBilateral(sxy=crf.position, srgb=crf.color, rgbim=image, compat=crf.appearance)
    return np.array(field.inference(crf.iterations)).reshape(logits.shape)


def memory_of(call):
    with get_context("spawn").Pool(1) as process:
        return process.apply(peak, (call,))


if __name__ == "__main__":
    main()
