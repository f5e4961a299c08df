"""Steps of the shipped recipe beside a plain loop over segmentation_models.pytorch's network.

    pip install segmentation_models_pytorch==0.6.0
    python benchmarks/training_step.py                          # batch 8, crop 352x480
    python benchmarks/training_step.py --backbone resnet50 --batch 2
    python benchmarks/training_step.py --profile                # and where our time goes

Ours is the step of `atrous train camvid`: bf16 autocast, loss with Dice, auxiliary head, AdamW and
averaged weights; beside it the same in fp32. Theirs is DeepLabV3Plus of the same backbone, output
stride, channels and rates, in fp32: forward, F.cross_entropy, backward, AdamW; as it comes and,
with `--channels-last`, in that layout as well. All data lie in memory. The last line is JSON. Leave
the machine alone meanwhile.
"""

import argparse
import json
from dataclasses import replace
from itertools import repeat

import segmentation_models_pytorch as smp
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from side_by_side import measure, print_environment
from torch.nn import functional as F
from torch.profiler import profile

from atrous.recipes import camvid
from atrous.train.training import Training

CLASSES = 11
PEER = "segmentation_models.pytorch fp32"


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    print_environment(options.threads, "torch", "timm", "segmentation_models_pytorch")
    recipe = replace(
        camvid(), backbone=options.backbone, batch_size=options.batch, crop_size=options.crop
    )
    calls = {
        "atrous bf16": our_step(recipe),
        "atrous fp32": our_step(replace(recipe, precision="fp32")),
        PEER: their_step(recipe, torch.contiguous_format),
    }
    if options.channels_last:
        calls[f"{PEER} channels last"] = their_step(recipe, torch.channels_last)
    seconds = measure(calls, options.rounds, warm_up=1)
    rates = {name: options.batch / t for name, t in seconds.items()}
    for name, rate in rates.items():
        print(f"  {name:46} {rate:6.3f} images/s  {rate / rates[PEER]:5.2f} times the peer's rate")
    if options.profile:
        print_profile(calls["atrous bf16"])
    result = {name: getattr(options, name) for name in ("backbone", "batch", "crop", "threads")}
    result["images_per_second"] = {name: round(rate, 3) for name, rate in rates.items()}
    result["times_faster"] = round(rates["atrous bf16"] / rates[PEER], 2)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=[352, 480], metavar=("H", "W"))
    parser.add_argument("--channels-last", action="store_true", help="the peer in that, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def our_step(recipe):
    AcceleratorState._reset_state()
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    training = Training(
        recipe, CLASSES, (0, 1, 2), Accelerator(mixed_precision=precision), fresh=False
    )
    generator = torch.Generator().manual_seed(0)
    shape = (recipe.batch_size, *recipe.crop_size)
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, CLASSES, shape, dtype=torch.uint8, generator=generator)
    batches = repeat((image, target))
    return lambda: training.advance(batches)[0][0].item()


def their_step(recipe, layout):
    network = smp.DeepLabV3Plus(
        f"tu-{recipe.backbone}",
        encoder_weights=None,
        encoder_output_stride=recipe.output_stride,
        decoder_channels=recipe.decoder_channels,
        decoder_atrous_rates=recipe.atrous_rates,
        classes=CLASSES,
    )
    network.train().to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.base_lr)
    generator = torch.Generator().manual_seed(0)
    shape = (recipe.batch_size, *recipe.crop_size)
    image = torch.randn(recipe.batch_size, 3, *recipe.crop_size, generator=generator)
    image = image.to(memory_format=layout)
    target = torch.randint(0, CLASSES, shape, generator=generator)

    def step():
        loss = F.cross_entropy(network(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def print_profile(step):
    with profile() as record:
        step()
    events = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    for event in events[:12]:
        print(f"  {event.self_cpu_time_total / whole:6.1%}  {event.count:5} x {event.key}")


if __name__ == "__main__":
    main()
