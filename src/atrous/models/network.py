"""The path from an image to logits, which all networks share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.bands import take_bands
from atrous.models.layers import AuxiliaryHead, crop, pad_image
from atrous.models.normalization import only_adds
from atrous.models.pyramid import Concatenation, Fusion

__all__ = ["Network", "Output"]


class Output(NamedTuple):
    """What a network returns."""

    logits: Tensor  # (B, K, ceil(H / s), ceil(W / s)), s = network.stride
    auxiliary: tuple[Tensor, ...] = ()
    """Logits of the auxiliary heads, at `network.auxiliary_strides`; only in training."""


class Network(nn.Module):
    """A backbone, a decoder (`decode`, written by the subclass) and a head.

    The image is padded with zeros at the right and at the bottom to a multiple of the output
    stride, and the logits are cropped to ceil(H / s) x ceil(W / s), so that any size works and cell
    (0, 0) always covers the pixels [0, s). The logits stay at the network's stride:
    `layers.upsample` makes them as large as the image.

    With a `fusion`, the features of several sizes of the image are merged before the head.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of all networks; a network's own `Config` adds its own."""

        name: ClassVar[str]
        """Key in `catalogue.MODELS`."""
        backbone: Backbone.Config
        auxiliary: bool = False
        """Add heads on features of the backbone, whose logits are returned in training."""
        auxiliary_levels: tuple[int, ...] = (16,)
        """Levels of the features that these heads are on."""
        pyramid_scales: tuple[float, ...] = ()
        """Scales of the image whose features are concatenated, 1 first; () for the image alone."""
        in_channels: int = 3
        """C of the images; 3 is red, green and blue."""

    head: nn.Module  # (B, C, h, w) -> (B, K, h, w)

    def __init__(self, backbone: Backbone, *, stride: int) -> None:
        """Take a backbone, and the stride of the logits."""
        super().__init__()
        self.backbone = backbone
        self.stride = stride
        self.aligned = backbone.aligned
        """Cells lie on the pixels 0, stride, 2 stride, ..., where in other networks they cover
        [0, stride), ...; images are padded to a multiple of the output stride and one more."""
        self.auxiliary_levels: tuple[int, ...] = ()
        self.fusion: Fusion | None = None
        self.adding_norms: list[_BatchNorm] = []
        """Those that only add (`normalization.only_adds`), of the weights that were loaded last."""
        self.register_load_state_dict_post_hook(_find_adding_norms)  # type: ignore[no-untyped-call]

    def finish(self, config: Config, num_classes: int) -> None:
        """Add the options that all networks share: the last step of each constructor."""
        if config.auxiliary:
            for level in config.auxiliary_levels:
                self._add_auxiliary_head(level, num_classes)
        if config.pyramid_scales:
            self.add_pyramid(config.pyramid_scales)
        if config.in_channels != 3:
            take_bands(self, (None,) * config.in_channels, keep_weights=False)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Turn the backbone's features, of the padded image, into the head's input (B, C, h, w)."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Output:  # (B, 3, H, W), normalised, any size
        """Return the logits at the network's stride."""
        padded = self._padded(image)
        features = self.backbone(padded)
        decoded = self.decode(features)  # (B, C, h, w)
        if self.fusion is not None:
            decoded = self.fusion(decoded, padded, self._decoded)
        logits = self.head(decoded)  # (B, K, h, w)
        auxiliary: list[Tensor] = []  # (B, K, ceil(H / s), ceil(W / s)) each, s its stride
        if self.training:
            for level, stride in zip(self.auxiliary_levels, self.auxiliary_strides, strict=True):
                head = getattr(self, _auxiliary_name(level))
                auxiliary.append(crop(head(features[level]), image, stride))
        return Output(crop(logits, image, self.stride), tuple(auxiliary))

    def train(self, mode: bool = True) -> Self:
        """Train all norms but those that only add.

        The statistics of a batch would undo what the convolutions before them were trained for.
        Each step of a training calls this, so it reads no value from the device.
        """
        super().train(mode)
        for norm in self.adding_norms:
            norm.eval()
        return self

    @property
    def auxiliary_strides(self) -> tuple[int, ...]:
        """Strides of the auxiliary heads' logits."""
        return tuple(min(level, self.backbone.output_stride) for level in self.auxiliary_levels)

    def add_pyramid(self, scales: Sequence[float]) -> None:
        """Concatenate the features of several scales of the image, 1 first."""
        convs = (m for m in self.head.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
        self.fusion = Concatenation(next(convs).in_channels, scales)

    def backbone_loaded(self) -> None:
        """Copy again what is copied from the backbone, whose weights were replaced."""

    def _add_auxiliary_head(self, level: int, num_classes: int) -> None:
        if level not in self.backbone.channels:
            levels = " ".join(map(str, self.backbone.channels))
            raise InputError(
                f"auxiliary level {level}: {self.backbone.name} has features of {levels} here"
            )
        head = AuxiliaryHead(self.backbone.channels[level], num_classes)
        self.add_module(_auxiliary_name(level), head)
        self.auxiliary_levels += (level,)

    def _decoded(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, ceil(H / s), ceil(W / s))
        return self.decode(self.backbone(self._padded(image)))

    def _padded(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 3, H', W')
        stride = self.backbone.output_stride
        return pad_image(image, stride, training=self.training, aligned=self.aligned)


def _find_adding_norms(network: nn.Module, _: object) -> None:
    assert isinstance(network, Network)
    if any(parameter.is_meta for parameter in network.parameters()):
        return  # shapes without values
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm))
    network.adding_norms = [norm for norm in norms if only_adds(norm)]
    for norm in network.adding_norms:
        norm.eval()


def _auxiliary_name(level: int) -> str:
    """Return the name of a head in state dicts; the first format has level 16 alone, unnamed."""
    return "auxiliary_head" if level == 16 else f"auxiliary_head_{level}"
