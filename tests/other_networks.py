"""Networks of projects that no package installs, written down from their definitions.

Names of tensors, shapes, strides, dilations and padding are theirs (the importers' docstrings cite
the files); the code is not. Each returns logits at its own stride.
"""

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP


def random_network(kind: type[nn.Module], *arguments: object, **options: object) -> nn.Module:
    """Build a network with random weights and statistics, none of which is like another."""
    with torch.device("meta"):  # what they start from does not matter, and takes its time
        network = kind(*arguments, **options)
    network = network.to_empty(device="cpu").eval()
    random = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if not tensor.dim():
            tensor.zero_()
        elif tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=random)
        else:
            tensor.uniform_(-1, 1, generator=random).mul_((3 / tensor[0].numel()) ** 0.5)
        if name.endswith(("bias", "running_mean")):
            tensor.sub_(1)
    return network


def resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def resnet(depth: int, output_stride: int = 8) -> nn.Module:
    """torchvision's, whose names and dilations VainF and mmsegmentation share."""
    dilated = [False, output_stride == 8, True]
    network = getattr(torchvision.models, f"resnet{depth}")(replace_stride_with_dilation=dilated)
    del network.fc
    return network


def stages(network: nn.Module, x: Tensor) -> list[Tensor]:
    features = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, name)(x)
        features.append(x)
    return features


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


# kazuto1011/deeplab-pytorch


class KazutoUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int, first: bool):
        super().__init__()
        inner = outputs // 4

        def conv(a: int, b: int, k: int, s: int, d: int, relu: bool) -> nn.Sequential:
            layer = nn.Conv2d(a, b, k, s, d * (k // 2), d, bias=False)
            return named(conv=layer, bn=nn.BatchNorm2d(b), **({"relu": nn.ReLU()} if relu else {}))

        self.reduce = conv(inputs, inner, 1, stride, 1, True)
        self.conv3x3 = conv(inner, inner, 3, 1, dilation, True)
        self.increase = conv(inner, outputs, 1, 1, 1, False)
        self.shortcut = conv(inputs, outputs, 1, stride, 1, False) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


class KazutoAspp(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        for i, rate in enumerate((6, 12, 18, 24)):
            self.add_module(f"c{i}", nn.Conv2d(2048, num_classes, 3, padding=rate, dilation=rate))

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self.children())


class Kazuto(nn.Module):
    """DeepLabV2 at one scale: BGR less a mean in, logits out, a row and column more than cells."""

    def __init__(self, num_classes: int, blocks: tuple[int, ...] = (3, 4, 23, 3)):
        super().__init__()
        stem = named(conv=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn=nn.BatchNorm2d(64))
        stem.add_module("relu", nn.ReLU())
        layers = {"layer1": named(conv1=stem, pool=nn.MaxPool2d(3, 2, 1, ceil_mode=True))}
        inputs = 64
        strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
        for i, count in enumerate(blocks):
            outputs = 256 << i
            units = {}
            for j in range(count):
                stride = strides[i] if j == 0 else 1
                units[f"block{j + 1}"] = KazutoUnit(inputs, outputs, stride, dilations[i], j == 0)
                inputs = outputs
            layers[f"layer{i + 2}"] = named(**units)
        self.base = named(**layers, aspp=KazutoAspp(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)


# VainF/DeepLabV3Plus-Pytorch


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 1, padding: int = 0) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class VainfUnit(nn.Module):
    """An inverted residual, which pads before it expands."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int, expansion: int):
        super().__init__()
        inner = inputs * expansion

        def conv(a: int, kernel: int, **options: int) -> nn.Sequential:
            layer = nn.Conv2d(a, inner, kernel, bias=False, **options)
            return nn.Sequential(layer, nn.BatchNorm2d(inner), nn.ReLU6())

        layers = [conv(inputs, 1)] if expansion > 1 else []
        layers.append(conv(inner, 3, stride=stride, dilation=dilation, groups=inner))
        layers += [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.margin = dilation
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x, (self.margin,) * 4))
        return x + y if self.skips else y


class VainfMobileNet(nn.Module):
    """MobileNetV2 at output stride 16; its stem does not pad."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        units: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(32), nn.ReLU6())]
        inputs = 32
        for t, outputs, count, stride, dilations in (
            (1, 16, 1, 1, (1, 1)),
            (6, 24, 2, 2, (1, 1)),
            (6, 32, 3, 2, (1, 1)),
            (6, 64, 4, 2, (1, 1)),
            (6, 96, 3, 1, (1, 1)),
            (6, 160, 3, 1, (1, 2)),  # its stride becomes a dilation, after the first unit
            (6, 320, 1, 1, (2, 2)),
        ):
            for i in range(count):
                first = i == 0
                unit = (stride if first else 1, dilations[0] if first else dilations[1], t)
                units.append(VainfUnit(inputs, outputs, *unit))
                inputs = outputs
        numbered = {str(i): unit for i, unit in enumerate(units)}
        self.low_level_features = named(**{k: u for k, u in numbered.items() if int(k) < 4})
        self.high_level_features = named(**{k: u for k, u in numbered.items() if int(k) >= 4})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low_level_features(x)
        return low, self.high_level_features(low)


class VainfResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        network = resnet(depth, 16)
        for name, layer in network.named_children():
            if name != "avgpool":
                self.add_module(name, layer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = stages(self, self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return features[0], features[3]


class VainfPlusHead(nn.Module):
    def __init__(self, low: int, deep: int, num_classes: int):
        super().__init__()
        self.project = nn.Sequential(*conv_norm_relu(low, 48))
        self.aspp = ASPP(deep, [6, 12, 18])
        last = nn.Conv2d(256, num_classes, 1)
        self.classifier = nn.Sequential(*conv_norm_relu(304, 256, 3, 1), last)

    def forward(self, low: Tensor, deep: Tensor) -> Tensor:
        low = self.project(low)
        return self.classifier(torch.cat([low, resize(self.aspp(deep), low)], dim=1))


class VainfHead(nn.Module):
    def __init__(self, low: int, deep: int, num_classes: int):
        super().__init__()
        last = nn.Conv2d(256, num_classes, 1)
        aspp = ASPP(deep, [6, 12, 18])
        self.classifier = nn.Sequential(aspp, *conv_norm_relu(256, 256, 3, 1), last)

    def forward(self, low: Tensor, deep: Tensor) -> Tensor:
        return self.classifier(deep)


class Vainf(nn.Module):
    """DeepLabV3 or V3+ at output stride 16, on a ResNet or (depth 0) on MobileNetV2."""

    def __init__(self, depth: int, num_classes: int, *, plus: bool):
        super().__init__()
        self.backbone = VainfResNet(depth) if depth else VainfMobileNet()
        channels = (256, 2048) if depth else (24, 320)
        self.classifier = (VainfPlusHead if plus else VainfHead)(*channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(*self.backbone(x))


# open-mmlab/mmsegmentation


def module(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1):
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, 1, padding, dilation, groups, bias=False)
    return named(conv=layer, bn=nn.BatchNorm2d(outputs), activate=nn.ReLU())


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = module(inputs, inputs, 3, dilation, inputs)
    return named(depthwise_conv=depthwise, pointwise_conv=module(inputs, outputs))


class MmsegHead(nn.Module):
    """One of four heads, by its name; `plus` is V3+'s."""

    def __init__(self, kind: str, num_classes: int, inputs: int = 2048, width: int = 512):
        super().__init__()
        self.kind = kind
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        if kind in ("deeplabv3", "deeplabv3plus"):
            branch = separable if kind == "deeplabv3plus" else self._atrous
            self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), module(inputs, width))
            branches = [branch(inputs, width, dilation=rate) for rate in (12, 24, 36)]
            self.aspp_modules = nn.ModuleList([module(inputs, width), *branches])
            self.bottleneck = module(5 * width, width, 3)
        if kind == "deeplabv3plus":
            self.c1_bottleneck = module(256, 48)
            self.sep_bottleneck = nn.Sequential(
                separable(width + 48, width), separable(width, width)
            )
        if kind == "pspnet":
            pools = [
                nn.Sequential(nn.AdaptiveAvgPool2d(n), module(inputs, width)) for n in (1, 2, 3, 6)
            ]
            self.psp_modules = nn.ModuleList(pools)
            self.bottleneck = module(inputs + 4 * width, width, 3)
        if kind == "fcn":
            self.convs = nn.Sequential(module(inputs, width, 3), module(width, width, 3))
            self.conv_cat = module(inputs + width, width, 3)

    @staticmethod
    def _atrous(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
        return module(inputs, outputs, 3, dilation)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[3]
        if self.kind == "fcn":
            return self.conv_seg(self.conv_cat(torch.cat([x, self.convs(x)], dim=1)))
        if self.kind == "pspnet":
            pyramid = [x, *(resize(pool(x), x) for pool in self.psp_modules)]
            return self.conv_seg(self.bottleneck(torch.cat(pyramid, dim=1)))
        pyramid = [resize(self.image_pool(x), x), *(branch(x) for branch in self.aspp_modules)]
        x = self.bottleneck(torch.cat(pyramid, dim=1))
        if self.kind == "deeplabv3plus":
            low = self.c1_bottleneck(features[0])
            x = self.sep_bottleneck(torch.cat([resize(x, low), low], dim=1))
        return self.conv_seg(x)


class MmsegResNet(nn.Module):
    def __init__(self, depth: int, *, deep_stem: bool):
        super().__init__()
        network = resnet(depth)
        if deep_stem:
            layers: list[nn.Module] = []
            for a, b, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
                conv = nn.Conv2d(a, b, 3, stride, 1, bias=False)
                layers += [conv, nn.BatchNorm2d(b), nn.ReLU()]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1, self.bn1 = network.conv1, network.bn1
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x) if hasattr(self, "stem") else F.relu(self.bn1(self.conv1(x)))
        return stages(self, F.max_pool2d(x, 3, 2, 1))


class Mmseg(nn.Module):
    """A network at output stride 8, with an auxiliary head, as all of its published ones."""

    def __init__(self, kind: str, depth: int, num_classes: int, *, deep_stem: bool = True):
        super().__init__()
        self.backbone = MmsegResNet(depth, deep_stem=deep_stem)
        self.decode_head = MmsegHead(kind, num_classes)
        self.auxiliary_head = nn.Module()
        self.auxiliary_head.convs = nn.Sequential(module(1024, 256, 3))
        self.auxiliary_head.conv_seg = nn.Conv2d(256, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode_head(self.backbone(x))
