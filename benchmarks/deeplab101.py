"""DeepLabV3 on ResNet-101 at stride 8, 182 classes, 513x513: our runtimes beside torchvision.

    python benchmarks/deeplab101.py
    python benchmarks/deeplab101.py --bundles DIR    # keeps them there: the next run starts at once

Both have the same weights: torchvision's, random, with batch normalisation that has seen a few
images so that activations are sane. Every contender gives full-size labels: torchvision by its own
bilinear upsampling and argmax, in eager torch; ours as bundles with exact upsampling and argmax in
one. Ours pads 513 to 520, torchvision does not, so that the networks are compared where neither
pads, at 512: the agreement of labels is with torchvision there, and of each runtime with float32 at
513. Random weights blow the noise of 8 bits up, layer by layer: the agreement of int8 says nothing
of a trained network's. The last line is JSON. Leave the machine alone meanwhile; it takes minutes.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import measure, print_environment
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet101

from atrous.export.graph import to_onnx, write_bundle
from atrous.export.int8.quantize import quantize
from atrous.infer.bundle import BundleMetadata
from atrous.infer.segmenter import load
from atrous.kernels import usable_cores
from atrous.models.create import create_model
from atrous.models.photo import PhotoNetwork
from atrous.taxonomy import Taxonomy, distinct_colors
from atrous.weights.importers.places import load_strictly
from atrous.weights.importers.torchvision import match

CLASSES = 182
SIDE = 513
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    theirs = their_network()
    print_environment(options.threads, "torch", "torchvision", "onnxruntime", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        bundles = options.bundles or Path(folder)
        fp32, int8 = bundles / "fp32.onnx", bundles / "int8.onnx"
        if not int8.exists():
            write_bundles(theirs, fp32, int8)
        if options.prepare:
            return
        predict = {
            "torchvision eager": partial(their_labels, theirs),
            "torchvision channels_last": partial(
                their_labels, their_network().to(memory_format=torch.channels_last)
            ),
        }
        for bundle in (fp32, int8):
            for runtime in ("onnxruntime", "openvino", "openvino:bf16"):
                segmenter = load(bundle, options.threads, runtime)
                predict[f"{runtime} {segmenter.runtime.precision}"] = segmenter.predict
        image, even = photo(0, SIDE), photo(0, SIDE - 1)
        equal = predict["torchvision eager"](even) == predict["onnxruntime fp32"](even)
        print(f"labels equal to torchvision's at {SIDE - 1}: {equal.mean():.2%}")
        exact = predict["onnxruntime fp32"](image)
        agreement = {
            name: round(float((call(image) == exact).mean()), 4) for name, call in predict.items()
        }
        calls = {name: partial(call, image) for name, call in predict.items()}
        seconds = measure(calls, options.rounds, warm_up=1, pause=0.02)
    slowest = seconds["torchvision eager"]
    for name, t in seconds.items():
        same = "" if "torchvision" in name else f"  labels equal to fp32 on {agreement[name]:.1%}"
        print(f"  {name:26} {1000 * t:7.0f} ms  {slowest / t:5.2f} times eager{same}")
    result = {"size": [SIDE, SIDE], "classes": CLASSES, "threads": options.threads}
    result["rounds"] = options.rounds
    result["milliseconds"] = {name: round(1000 * t, 1) for name, t in seconds.items()}
    result["times_eager"] = {name: round(slowest / t, 2) for name, t in seconds.items()}
    result["labels_equal_to_torchvision"] = round(float(equal.mean()), 5)
    result["labels_equal_to_fp32"] = agreement
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--bundles", type=Path, help="folder to keep the bundles in")
    parser.add_argument("--prepare", action="store_true", help="write the bundles and stop")
    return parser.parse_args()


def photo(seed, side):
    """A smooth image of many colours, (side, side, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def normalized(images):
    """uint8 (B, H, W, 3) to what torchvision's networks take, (B, 3, H, W)."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    return (planes - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.no_grad()
def their_network():
    """torchvision's network, with weights and statistics that keep its activations sane."""
    torch.manual_seed(0)
    network = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
            if name.endswith("bn3"):
                module.weight.fill_(0.3)  # as trained residuals are: smaller than what they join
    network.train()(normalized(np.stack([photo(seed, 193) for seed in range(4)])))
    return network.eval()


@torch.inference_mode()
def their_labels(network, image):
    """Labels (H, W) of an image (H, W, 3), as torchvision's references do it."""
    return network(normalized(image[None]))["out"].argmax(1)[0].numpy()


def write_bundles(theirs, fp32, int8):
    """Write our form of `theirs` to both paths."""
    classes = tuple(f"class {k}" for k in range(CLASSES))
    metadata = BundleMetadata(
        taxonomy=Taxonomy(name="random", classes=classes, colors=distinct_colors(CLASSES)),
        stride=8,
        precision="fp32",
        model="deeplabv3 on resnet101, output stride 8",
        licence="none",
        version="0",
    )
    model = to_onnx(PhotoNetwork(our_network(theirs), MEAN, STD).eval())
    write_bundle(model, metadata, fp32)
    # Small images, as 112 layers are measured on them.
    model, plan = quantize(model, [photo(seed, 129) for seed in range(10, 14)])
    write_bundle(model, replace(metadata, precision="int8"), int8)
    print(plan)


def our_network(theirs):
    """The network of `atrous` with the weights of torchvision's."""
    found = match(theirs.state_dict(), None)
    network = create_model(found.config, found.num_classes)
    load_strictly(network, found, "deeplabv3")
    return network


if __name__ == "__main__":
    main()
