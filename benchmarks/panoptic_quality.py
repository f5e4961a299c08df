"""Panoptic quality of one 512x1024 image of 100 segments: atrous beside torchmetrics, in turn.

    python benchmarks/panoptic_quality.py
    python benchmarks/panoptic_quality.py --size 1024 2048 --segments 200

Both match the same two segmentations, whose PQ must come out equal: there are no crowds and no void
in them, over which the two differ. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json

import numpy as np
import torch
from side_by_side import measure, print_environment
from torchmetrics.detection import PanopticQuality as PeerQuality

from atrous.kernels import usable_cores
from atrous.metrics import Panoptic, PanopticQuality

NUM_CATEGORIES = 20


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    print_environment(options.threads, "numpy", "torch", "torchmetrics")
    random = np.random.default_rng(0)
    truth, prediction = segmentations(random, *options.size, options.segments)
    categories = [{"id": i, "name": f"category {i}", "isthing": 1} for i in range(NUM_CATEGORIES)]
    ours = PanopticQuality(categories)
    theirs = PeerQuality(things=set(range(NUM_CATEGORIES)), stuffs=set())
    pair = as_panoptic(prediction), as_panoptic(truth)
    peer_pair = as_channels(prediction), as_channels(truth)
    contenders = {
        "atrous": lambda: ours.update(*pair),
        "torchmetrics": lambda: theirs.update(*peer_pair),
    }
    seconds = measure(contenders, options.rounds, warm_up=2)
    scores = {"atrous": ours.scores().pq, "torchmetrics": float(theirs.compute())}
    for name, t in seconds.items():
        print(f"  {name:14} {1000 * t:8.2f} ms  median of {options.rounds}  PQ {scores[name]:.6f}")
    assert abs(scores["atrous"] - scores["torchmetrics"]) < 1e-6
    times_faster = round(seconds["torchmetrics"] / seconds["atrous"], 1)
    print(f"  {times_faster} times faster")
    result = {"image": options.size, "segments": options.segments, "threads": options.threads}
    result["milliseconds"] = {name: round(1000 * t, 3) for name, t in seconds.items()}
    print(json.dumps({**result, "pq": scores, "times_faster": times_faster}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[512, 1024], help="height and width")
    parser.add_argument("--segments", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of torch")
    return parser.parse_args()


def segmentations(random, height, width, count):
    """Two segmentations: ids (H, W), and the category of each id. The second is the first moved."""
    points = random.integers(0, (height, width), (count, 2))
    y, x = np.mgrid[:height, :width]
    nearest = np.zeros((height, width), np.int32)
    best = np.full((height, width), np.inf)
    for index, (top, left) in enumerate(points):
        distance = (y - top) ** 2 + (x - left) ** 2
        nearest[distance < best] = index
        best = np.minimum(best, distance)
    ids = (1 + random.choice((1 << 24) - 1, count, replace=False)).astype(np.int32)
    categories = dict(zip(ids.tolist(), (np.arange(count) % NUM_CATEGORIES).tolist(), strict=True))
    return (ids[nearest], categories), (np.roll(ids[nearest], (5, 9), (0, 1)), categories)


def as_panoptic(segmentation):
    ids, categories = segmentation
    return Panoptic(ids, [{"id": i, "category_id": c} for i, c in categories.items()])


def as_channels(segmentation):
    """(1, H, W, 2) category and id, as torchmetrics takes them."""
    ids, categories = segmentation
    known = np.array(sorted(categories))
    category = np.array([categories[i] for i in known])[np.searchsorted(known, ids)]
    return torch.from_numpy(np.stack([category, ids], axis=-1))[None]


if __name__ == "__main__":
    main()
