"""The recipe `paper`: its network against a transcription of the paper, and a short training."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet101
from torchvision.models.resnet import Bottleneck

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.recipes import paper
from atrous.train.network import start_network

RGB = (0, 1, 2)


class Transcription(nn.Module):
    """Section 3.1 and the listing of the ASPP in section 4, completed: its 3x3 keep the size."""

    def __init__(self, num_classes: int, depth: int = 256, m: float = 0.0003) -> None:
        super().__init__()
        resnet = resnet101(
            replace_stride_with_dilation=[False, False, True],
            norm_layer=lambda channels: nn.BatchNorm2d(channels, momentum=m),
        )
        self.backbone = nn.Sequential(*list(resnet.children())[:-2])  # no pooling, no classifier
        self.blocks = nn.Sequential(
            *(self.block(dilation, m) for dilation in (4, 8, 16) for _ in range(3))
        )
        self.aspp = nn.ModuleList(self.aspp_block(rate, depth, m) for rate in (1, 6, 12, 18))
        self.aspp5 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(2048, depth, kernel_size=1, stride=1, bias=False),
            nn.BatchNorm2d(depth, momentum=m),
            nn.ReLU(inplace=True),
        )
        self.project = nn.Sequential(
            nn.Conv2d(5 * depth, depth, kernel_size=1, bias=False),
            nn.BatchNorm2d(depth, momentum=m),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Conv2d(depth, num_classes, kernel_size=1)

    def block(self, dilation: int, m: float) -> nn.Module:
        return Bottleneck(
            2048, 512, dilation=dilation, norm_layer=lambda c: nn.BatchNorm2d(c, momentum=m)
        )

    def aspp_block(self, rate: int, depth: int, m: float) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2048, depth, kernel_size=3, padding=rate, dilation=rate, bias=False),
            nn.BatchNorm2d(depth, momentum=m),
            nn.ReLU(inplace=True),
        )

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, K, H / 16, W / 16)
        x = self.blocks(self.backbone(image))
        pyramid = [branch(x) for branch in self.aspp]
        pyramid.append(self.aspp5(x).expand_as(pyramid[0]))
        return self.classifier(self.project(torch.cat(pyramid, dim=1)))


def layers(network: nn.Module) -> list[tuple[object, ...]]:
    """The convolutions and norms in their order."""
    found: list[tuple[object, ...]] = []
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            sizes = m.kernel_size, m.stride, m.padding, m.dilation
            found.append((m.in_channels, m.out_channels, *sizes, m.groups, m.bias is not None))
        elif isinstance(m, nn.BatchNorm2d):
            found.append((m.num_features, m.eps, pytest.approx(m.momentum)))
    return found


@pytest.mark.slow
def test_its_network_is_the_transcription() -> None:
    num_classes = 92  # 91 of stuff, and "other"
    network, _ = start_network(replace(paper(), pretrained=False), num_classes, RGB)
    with torch.device("meta"):
        theirs = Transcription(num_classes)
    assert layers(network) == layers(theirs)
    assert sum(p.numel() for p in network.parameters()) == 102_416_540

    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.constant_(norm.weight, 0.7)  # some start at 0, and would hide what is before them
    state = dict(zip(theirs.state_dict(), network.state_dict().values(), strict=True))
    theirs.load_state_dict(state, assign=True)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, logits = theirs.eval()(image), network.eval()(image).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_it_trains_as_the_paper_says() -> None:
    recipe = paper()
    assert (recipe.batch_size, recipe.base_lr, recipe.batchnorm_decay) == (16, 1e-4, 0.9997)
    assert recipe.center_crop and recipe.crop_size == (224, 224)
    jitter = recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, recipe.gamma
    assert not any(jitter)


def write_stuff(root: Path) -> None:
    """Write images of sky (157) over grass (124) or sea (155), with a thing (183), and no label."""
    random = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 2)):
        images = root / f"{split}2017"
        labels = root / f"annotations/stuff_{split}2017_pixelmaps"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(number):
            label = np.full((48, 64), 157, np.uint8)
            label[int(random.integers(15, 35)) :] = (124, 155)[i % 2]
            label[20:30, 10:30], label[:, -5:] = 183, 0
            color = np.stack([label, 255 - label, label // 2], axis=-1)
            Image.fromarray(color).save(images / f"{i:012}.jpg")
            Image.fromarray(label).save(labels / f"{i:012}.png")


@pytest.mark.slow
def test_twenty_steps_from_random_weights_print_both_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a small backbone, and narrow."""
    write_stuff(tmp_path / "coco")
    small = "--no-pretrained --backbone mobilenetv3_small_050 --aspp-channels 16 --num-workers 0"
    steps = "--crop-size 32 32 --batch-size 2 --num-steps 20"
    root, out = str(tmp_path / "coco"), str(tmp_path / "run")
    arguments = ["train", "paper", "--root", root, "--out", out, *small.split(), *steps.split()]
    assert main(arguments) == 0
    printed = re.search(
        r"best val mIoU ([\d.]+) \+- [\d.]+ \(pooled\), ([\d.]+) \+- [\d.]+ \(per-image\) "
        r"of 2 images at step 20\n",
        capsys.readouterr().err,
    )
    assert printed is not None
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    per_image = scores["per_image"]
    assert (scores["protocol"], per_image["protocol"]) == ("pooled", "per-image")
    assert printed.groups() == tuple(f"{100 * s['miou']:.1f}" for s in (scores, per_image))
    low, high = per_image["interval"]
    assert 0 <= low <= per_image["miou"] <= high <= 1
    assert len(Dataset.open("cocostuff-stuff", root).taxonomy.classes) == len(per_image["iou"])
