"""One photo, uint8 image to labels: every runtime beside eager torch, in turn.

    python benchmarks/runtimes.py                              # the shipped model
    python benchmarks/runtimes.py --bundle fp32.onnx --run runs/camvid
    python benchmarks/runtimes.py --photo street.jpg --run runs/camvid --compile

All give full-size labels. The peer is the network of `--run` as torch runs it by default, with its
own bilinear upsampling to full size and argmax. The first of the shipped model's runtimes is that
which labels are compared with. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
from functools import partial

import numpy as np
from PIL import Image
from side_by_side import measure, print_environment

import atrous
from atrous.infer.runtimes.open import installed_runtimes_of
from atrous.kernels import usable_cores
from atrous.weights.hub import resolve

PEER = "eager torch"


def main():
    options = parse()
    photo = read_photo(options.photo, options.size)
    print_environment(options.threads, *packages(options.run))
    contenders = {}
    for model in (options.model, *options.bundle):
        for runtime in installed_runtimes_of(resolve(model)):
            segment = atrous.load(model, options.threads, runtime, tile=0)
            contenders[segment.description] = segment.predict
    if options.run:
        for runtime in ("torch", "torch:bf16", *["torch:compile"] * options.compile):
            segment = atrous.load(options.run, options.threads, runtime, tile=0)
            contenders[segment.description] = segment.predict
        contenders[PEER] = torch_predict(options.run, options.threads)
    labels = [predict(photo) for predict in contenders.values()]
    calls = {name: partial(predict, photo) for name, predict in contenders.items()}
    seconds = measure(calls, options.rounds, pause=0.02)
    report(seconds, [float(np.mean(one == labels[0])) for one in labels], photo, options)


def report(seconds, same, photo, options):
    height, width = photo.shape[:2]
    print(f"  {width}x{height}, median of {options.rounds}")
    for (name, t), share in zip(seconds.items(), same, strict=True):
        ratio = f"{seconds[PEER] / t:5.2f} x" if options.run else ""
        print(f"  {name:42} {1000 * t:7.1f} ms  {100 * share:6.2f} % as the first  {ratio}")
    best = min(seconds, key=seconds.get)
    result = {"image": [height, width], "threads": options.threads, "best": best}
    result["milliseconds"] = {name: round(1000 * t, 2) for name, t in seconds.items()}
    if options.run:
        result["times_faster"] = round(seconds[PEER] / seconds[best], 2)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="camvid", help="shipped name or bundle")
    parser.add_argument("--bundle", nargs="*", default=[], help="others of the same network")
    parser.add_argument("--run", help="run folder of the same network, for torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: minutes")
    parser.add_argument("--photo", help="image; by default noise, which is the hardest to upsample")
    parser.add_argument("--size", type=int, nargs=2, default=[360, 480], metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=usable_cores())
    return parser.parse_args()


def packages(run):
    return ["onnxruntime", "openvino", "numpy", "pillow", *["torch"] * bool(run)]


def read_photo(path, size):
    """A photo (H, W, 3) uint8."""
    if path is None:
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
    else:
        image = Image.open(path).convert("RGB")
    return np.array(image.resize(size[::-1], Image.Resampling.BICUBIC))


def torch_predict(run, threads):
    """The run's network as torch runs it by default, image (H, W, 3) to labels (H, W)."""
    import torch

    from atrous.models.layers import upsample
    from atrous.run import load_run

    torch.set_num_threads(threads)
    network = load_run(run).network

    @torch.inference_mode()
    def predict(image):
        logits = network(torch.from_numpy(image)[None])  # (1, K, h, w)
        return upsample(logits, network.stride, image.shape[:2]).argmax(1)[0].numpy()

    return predict


if __name__ == "__main__":
    main()
