"""The pictures of docs/atrous-against-fcn.md: what each network sees, and where it errs.

    python benchmarks/against_fcn.py RUNS CAMVID OUT [PHOTO] [--study against_fcn_short]

RUNS holds the run folders that `atrous compare STUDY --out RUNS` trains. Written into OUT:
labels.png, the truth and each network's labels of a few val images; photo.jpg, PHOTO and what each
makes of it (docs/demo/street.jpg if left out); error.svg, the share of wrong pixels by their
distance from the nearest true boundary. Prints those shares, in percent, and what a step of the
training takes, in turn and on one thread (`--rounds 0`: not measured); all of it as a line of JSON
last. Networks that are not trained yet are left out.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from side_by_side import measure, print_environment
from training_step import our_step

import atrous
from atrous.data.dataset import Dataset
from atrous.draw import colorize
from atrous.images.photos import read_image
from atrous.recipes import STUDIES
from atrous.run import Run, has_run

EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, np.inf)
"""Bins of the distance in pixels; the pixels at a boundary have distance 0."""
SHOWN = (0, 50, 100)
"""Places in the val split of the images in labels.png: the first, the middle, the last."""
WIDTH = 240
"""Of a tile."""
COLORS = {
    "fcn32s": "#999999",
    "fcn16s": "#666666",
    "fcn8s": "#222222",
    "unet": "#2ca02c",
    "pspnet": "#9467bd",
    "deeplabv3_cascade": "#ff7f0e",
    "deeplabv3": "#1f77b4",
    "deeplabv3plus": "#d62728",
    "deeplabv2": "#17becf",
    "image_pyramid": "#bcbd22",
    "frrn_a": "#8c564b",
}
DASHED = ("fcn32s", "fcn16s", "fcn8s")


def main():
    options = parse()
    runs, out = options.runs, options.out
    members = STUDIES[options.study]()
    study = {name: recipe for name, recipe in members.items() if is_trained(runs / name)}
    if not study:
        raise SystemExit(f"{runs}: holds no finished run of {options.study}; train it first")
    torch.set_num_threads(1)
    print_environment(1, "torch", "timm")
    dataset, image = Dataset.open("camvid", options.camvid), read_image(options.photo)
    samples = list(dataset.split("val"))
    distances = [boundary_distance(sample.label) for sample in samples]
    sheets = [{"truth": colorize(samples[i].label, dataset.taxonomy)} for i in SHOWN]
    street, wrong = {"photo": image}, {}
    for name in study:
        model = atrous.load(runs / name, runtime="torch", threads=1)
        predictions = [model.predict(sample.image) for sample in samples]
        wrong[name] = error_by_distance(predictions, samples, distances)
        print(f"{name:18}", *(f"{100 * share:5.1f}" for share in wrong[name]), flush=True)
        for tiles, i in zip(sheets, SHOWN, strict=True):
            tiles[name] = colorize(predictions[i], dataset.taxonomy)
        street[name] = image // 2 + colorize(model.predict(image), dataset.taxonomy) // 2
    out.mkdir(parents=True, exist_ok=True)
    labels = np.concatenate([sheet(tiles, Image.NEAREST) for tiles in sheets])
    Image.fromarray(labels).quantize(64, dither=Image.Dither.NONE).save(out / "labels.png")
    Image.fromarray(sheet(street)).save(out / "photo.jpg", quality=80)
    (out / "error.svg").write_text(curve(wrong), encoding="utf-8")
    seconds = {}
    if options.rounds:
        steps = {name: our_step(study[name]) for name in study}
        seconds = measure(steps, options.rounds, warm_up=1)
    for name, each in seconds.items():
        print(f"{name:18} {each:.2f} s a step")
    shares = {name: [round(float(share), 5) for share in wrong[name]] for name in study}
    edges = [str(edge) for edge in EDGES]
    print(json.dumps({"edges": edges, "wrong": shares, "seconds_per_step": seconds}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("camvid", help="the folder of CamVid")
    parser.add_argument("out", type=Path)
    demo = Path(__file__).parent.parent / "docs" / "demo" / "street.jpg"
    parser.add_argument("photo", type=Path, nargs="?", default=demo)
    studies = [name for name in STUDIES if name.startswith("against_fcn")]
    parser.add_argument("--study", choices=studies, default="against_fcn")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed; 0 for none")
    return parser.parse_args()


def is_trained(run):
    return has_run(run) and Run.read(run).is_finished(run)


def boundary_distance(label):
    """Distance of each pixel (H, W) from the nearest one that touches another class."""
    edge = np.zeros(label.shape, bool)
    for rows, touched in ((label, edge), (label.T, edge.T)):
        differs = rows[1:] != rows[:-1]
        touched[1:] |= differs
        touched[:-1] |= differs
    return distance_transform_edt(~edge)


def error_by_distance(predictions, samples, distances):
    """The share of wrong pixels in each bin of `EDGES`, over all images and labelled pixels."""
    counts = np.zeros((2, len(EDGES) - 1))
    for prediction, sample, distance in zip(predictions, samples, distances, strict=True):
        known = sample.label != 255
        error = known & (prediction != sample.label)
        counts += [np.histogram(distance[mask], EDGES)[0] for mask in (error, known)]
    return counts[0] / counts[1]


def sheet(images, resample=Image.BILINEAR):
    """Tiles of three columns, each with its name; images by name, (h, w, 3)."""
    first = next(iter(images.values()))
    tile, caption = (WIDTH, round(WIDTH * first.shape[0] / first.shape[1])), 18
    rows = -(-len(images) // 3)
    canvas = Image.new("RGB", (3 * WIDTH, rows * (tile[1] + caption)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for i, (name, image) in enumerate(images.items()):
        x, y = i % 3 * WIDTH, i // 3 * (tile[1] + caption)
        draw.text((x + 4, y + 2), name, "black", font)
        canvas.paste(Image.fromarray(image).resize(tile, resample), (x, y + caption))
    return np.asarray(canvas)


def curve(wrong):
    """An SVG of the shares: a line for each network, over the bins at equal steps."""
    left, top, width, height = 50, 20, 460, 300
    highest = 1.05 * max(max(shares) for shares in wrong.values())
    bins = [
        f"{low}" if high == low + 1 else f"{low}+" if high == np.inf else f"{low}-{high - 1}"
        for low, high in pairwise(EDGES)
    ]
    step = width / (len(bins) - 1)

    def y(share):
        return round(top + height * (1 - share / highest), 1)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 370" font-family="sans-serif" '
        'font-size="12"><rect width="700" height="370" fill="white"/>'
    ]
    for share in np.arange(0, highest, 0.1):
        parts.append(f'<path d="M{left} {y(share)}h{width}" stroke="#ddd"/>')
        parts.append(f'<text x="8" y="{y(share) + 4}">{100 * share:.0f} %</text>')
    for i, text in enumerate(bins):
        parts.append(f'<text x="{left + i * step:.0f}" y="336" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{left}" y="356">pixels from the nearest boundary</text>')
    for i, (name, shares) in enumerate(wrong.items()):
        points = " ".join(f"{left + j * step:.1f},{y(share)}" for j, share in enumerate(shares))
        dash = ' stroke-dasharray="5 3"' if name in DASHED else ""
        line = f'fill="none" stroke="{COLORS[name]}" stroke-width="1.8"{dash}'
        parts.append(f'<polyline points="{points}" {line}/>')
        row = top + 14 + 20 * i
        parts.append(f'<path d="M530 {row - 4}h24" {line}/><text x="560" y="{row}">{name}</text>')
    return "".join(parts) + "</svg>\n"


if __name__ == "__main__":
    main()
