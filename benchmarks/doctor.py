"""`atrous data doctor` on 1,000 generated pairs of 480x360: seconds, and what it found.

    python benchmarks/doctor.py                     # JPEG photos, PNG masks of 12 classes
    python benchmarks/doctor.py --pairs 200 --rgb   # masks as colours, a tenth of them blurred

The photos are smooth noise, as costly to decode as real ones. Files are read once before, so that
the disk is left out. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import print_environment

from atrous.doctor import examine
from atrous.taxonomy import distinct_colors

HEIGHT, WIDTH, CLASSES = 360, 480, 12
PALETTE = np.array(distinct_colors(CLASSES), np.uint8)


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, options.pairs, options.rgb)
        size = sum(len(path.read_bytes()) for path in folder.rglob("*.*"))
        load = os.getloadavg()[0]
        start = time.perf_counter()
        diagnosis = examine(folder)
        seconds = time.perf_counter() - start
    print_environment(os.cpu_count(), "numpy", "pillow")
    found = {finding.code: finding.count for finding in diagnosis.findings}
    print(f"  {options.pairs} pairs of {WIDTH}x{HEIGHT}, {size / 1e6:.0f} MB: {seconds:.1f} s")
    print(f"  {1000 * seconds / options.pairs:.1f} ms a pair; found {found}")
    result = {"pairs": options.pairs, "rgb": options.rgb, "seconds": round(seconds, 2)}
    print(json.dumps({**result, "load_before": round(load, 2), "found": found}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rgb", action="store_true", help="masks as colours, some blurred")
    return parser.parse_args()


def write(folder, pairs, rgb):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(pairs):
        rng = np.random.default_rng(number)
        smooth = resize(rng.integers(0, 256, (45, 60, 3), dtype=np.uint8), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 8, (HEIGHT, WIDTH, 3))
        photo = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f"images/{number:04}.jpg", quality=90)
        ids = (
            resize(rng.integers(0, 256, (9, 12), dtype=np.uint8), Image.Resampling.BICUBIC)
        ) // 22
        mask = PALETTE[ids] if rgb else ids
        if rgb and number % 10 == 0:
            small = Image.fromarray(mask).resize(
                (WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR
            )
            mask = resize(np.array(small), Image.Resampling.BILINEAR)
        Image.fromarray(mask).save(folder / f"masks/{number:04}.png")


def resize(array, method):
    return np.array(Image.fromarray(array).resize((WIDTH, HEIGHT), method))


if __name__ == "__main__":
    main()
