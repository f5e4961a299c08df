"""One 480x360 photo, uint8 image to labels: the default runtime beside eager torch, in turn.

    python benchmarks/photo.py                            # the shipped model alone
    python benchmarks/photo.py --run runs/camvid          # and the same network in torch
    python benchmarks/photo.py --photo street.jpg --model mine.onnx

Both give full-size labels. In torch that is the network, bilinear upsampling to full size and
argmax; `--torch-upsample atrous` gives torch our own upsampling, so that the networks alone differ.
The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import measure, print_environment

import atrous
from atrous.infer.runtimes import usable_cores


def main():
    options = parse()
    photo = read_photo(options.photo)
    threads = options.threads or usable_cores()
    segment = atrous.load(options.model, threads)
    contenders = {f"{segment.metadata.precision} {segment.runtime.name}": segment.predict}
    if options.run:
        contenders["torch eager"] = torch_predict(options.run, threads, options.torch_upsample)
    peer = ["torch"] if options.run else []
    print_environment(threads, "onnxruntime", "numpy", "pillow", *peer)
    calls = {name: partial(predict, photo) for name, predict in contenders.items()}
    # onnxruntime's threads spin for a while after a call; the next shall not feel it.
    seconds = measure(calls, options.rounds, pause=0.02)
    result = {"image": list(photo.shape[:2]), "threads": threads, "model": options.model}
    result["milliseconds"] = {name: round(1000 * t, 2) for name, t in seconds.items()}
    for name, t in seconds.items():
        print(f"  {name:24} {1000 * t:7.1f} ms  median of {options.rounds}")
    if options.run:
        ours, theirs = seconds.values()
        result["times_faster"] = round(theirs / ours, 2)
        print(f"  {theirs / ours:.1f} times faster than eager torch")
    result["cold_start_seconds"] = round(cold_start(photo, options.model), 3)
    print(f"  cold start of atrous segment: {result['cold_start_seconds']:.2f} s")
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="camvid", help="shipped name or bundle")
    parser.add_argument("--run", help="run folder of the same network, for torch")
    parser.add_argument("--photo", help="image; by default noise, which is the hardest to upsample")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, help="by default all that this process may use")
    parser.add_argument("--torch-upsample", choices=["torch", "atrous"], default="torch")
    return parser.parse_args()


def read_photo(path):
    """A 480x360 photo, (360, 480, 3) uint8."""
    if path is None:
        small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        return np.array(Image.fromarray(small).resize((480, 360), Image.Resampling.BICUBIC))
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((480, 360), Image.Resampling.BICUBIC))


def torch_predict(run, threads, upsampling):
    """The run's network in eager torch, image (H, W, 3) to labels (H, W)."""
    import torch

    from atrous.models.layers import upsample
    from atrous.models.runs import load_run

    if upsampling == "atrous":
        return atrous.load(run, threads).predict
    torch.set_num_threads(threads)
    network = load_run(run).network

    @torch.inference_mode()
    def predict(image):
        logits = network(torch.from_numpy(image)[None])  # (1, K, h, w)
        return upsample(logits, network.stride, image.shape[:2]).argmax(1)[0].numpy()

    return predict


def cold_start(photo, model, repeats=3):
    """The median wall time of a new process that segments one photo and writes its files."""
    code = "import sys; from atrous.cli import main; sys.exit(main())"
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(photo).save(path, quality=95)
        for _ in range(repeats):
            command = [sys.executable, "-c", code, "segment", str(path)]
            command += ["--model", str(model), "--out", folder]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
