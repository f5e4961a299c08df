"""The loss from low-resolution logits beside the plain one at full size: time and peak memory.

    python benchmarks/loss.py           # 182 classes, 65x65 to 513x513
    python benchmarks/loss.py --classes 11 --size 352 480 --stride 4 --dice 1   # as camvid trains

Plain is F.interpolate, F.cross_entropy (and our plain Dice loss, if asked for) and their backward
pass. Both times are of forward and backward, in turn in one process. The memory is what a fresh
process of each holds at its highest, above what it holds with its inputs and gradients ready (from
/proc, so on Linux only). The values and gradients are compared first. The last line is JSON. Leave
the machine alone meanwhile.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from side_by_side import measure, print_environment
from torch.nn import functional as F

from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.recipe import Recipe

sys.path.append(str(Path(__file__).parent.parent / "tests/train"))
from plain_loss import dice_loss


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    if options.alone:
        print(peak_extra(options))
        return
    print_environment(options.threads, "torch")
    calls = contenders(options)
    check(calls)
    seconds = measure(calls, options.rounds, warm_up=1)
    memory = {name: in_a_fresh_process(name) for name in calls}
    for name, t in seconds.items():
        print(f"  {name:8} {1000 * t:8.1f} ms  {memory[name] / 2**20:8.1f} MiB")
    times_faster = seconds["plain"] / seconds["atrous"]
    times_smaller = memory["plain"] / memory["atrous"]
    print(f"  {times_faster:.1f} times faster, 1/{times_smaller:.0f} of the memory")
    result = {name: getattr(options, name) for name in ("batch", "classes", "size", "stride")}
    result |= {"dice": options.dice, "threads": options.threads}
    result["milliseconds"] = {name: round(1000 * t, 1) for name, t in seconds.items()}
    result["peak_extra_mib"] = {name: round(size / 2**20, 1) for name, size in memory.items()}
    result |= {"times_faster": round(times_faster, 2), "times_smaller": round(times_smaller, 1)}
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--classes", type=int, default=182)
    parser.add_argument("--size", type=int, nargs=2, default=[513, 513], metavar=("H", "W"))
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--dice", type=float, default=0.0, help="weight of the Dice loss")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", choices=["plain", "atrous"], help="the peak of one, in bytes")
    return parser.parse_args()


def contenders(options):
    """Each takes nothing, and returns the loss and the gradient (B, K, h, w)."""
    generator = torch.Generator().manual_seed(0)
    cells = [-(-side // options.stride) for side in options.size]
    logits = 3 * torch.randn(options.batch, options.classes, *cells, generator=generator)
    logits.requires_grad_()
    target = torch.randint(0, options.classes, (options.batch, *options.size), generator=generator)
    target[:, ::7, ::5] = 255
    recipe = Recipe(dice_weight=options.dice)
    bytes_of_target = target.to(torch.uint8)  # what the loader gives; F.cross_entropy wants int64
    return {
        "plain": partial(plain, logits, target, options.stride, options.dice),
        "atrous": lambda: with_gradient(
            upsampled_loss(logits, bytes_of_target, options.stride, recipe), logits
        ),
    }


def plain(logits, target, stride, dice):
    full = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
    full = full[..., : target.shape[1], : target.shape[2]]
    loss = F.cross_entropy(full, target, ignore_index=255)
    if dice:
        loss = loss + dice * dice_loss(full, target)
    return with_gradient(loss, logits)


def with_gradient(loss, logits):
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def check(calls):
    (expected, slope), (loss, gradient) = calls["plain"](), calls["atrous"]()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    distance = float((gradient - slope).norm() / slope.norm())
    assert distance < 1e-5, f"the gradients are {distance} apart"
    print(f"  losses {float(expected):.7f} and {float(loss):.7f}; gradients {distance:.1e} apart")


def peak_extra(options):
    """Bytes above those that the process holds before, at the highest of one call."""
    call = contenders(options)[options.alone]
    small = argparse.Namespace(**vars(options) | {"batch": 1, "size": [16, 16]})
    contenders(small)[options.alone]()  # what is loaded and kept once does not count
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def in_a_fresh_process(name):
    command = [sys.executable, *sys.argv, "--alone", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
