"""Recipe: every knob of a training, typed and documented."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from atrous.errors import InputError
from atrous.models.catalogue import entry

_POSITIVE = (
    "batch_size",
    "accumulation",
    "num_steps",
    "base_lr",
    "validate_every",
    "checkpoint_every",
    "log_every",
    "aspp_channels",
    "decoder_channels",
    "pyramid_scales",
    "fusion_scales",
    "atrous_rates",
    "multi_grid",
    "crop_size",
    "scale",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what a training does, but for the data's place and the run's folder.

    The defaults are a sound start for a small set on any machine; `atrous.recipes` holds tuned
    ones.
    """

    model: str = "deeplabv3plus"
    """Name of the network; `atrous models` lists them."""
    backbone: str = "tf_efficientnet_lite2"
    """Name of the backbone; `atrous models` lists those that are proven."""
    pretrained: bool = True
    """Start the backbone from ImageNet weights."""
    backbone_weights: str | None = None
    """A checkpoint file of torchvision's or timm's ImageNet classifier to start the backbone from
    instead."""
    output_stride: Literal[8, 16, 32] | None = None
    """Input size over the size of the deepest features; the paper's for the model if left out."""
    pyramid_scales: tuple[float, ...] = ()
    """Sizes of the image whose features are concatenated, 1 first; none for the image alone."""
    fusion_scales: tuple[float, ...] = ()
    """Sizes of the image whose largest scores DeepLabV2 takes, 1 first; none for the paper's."""
    atrous_rates: tuple[int, ...] = ()
    """Rates of the ASPP's 3x3 branches; none for the paper's."""
    image_pooling: bool = True
    """Give the ASPP its image-level branch."""
    multi_grid: tuple[int, ...] = ()
    """Factors on the dilation of the last stage's blocks; none keeps the taps of the
    pretraining."""
    separable: bool = False
    """Depthwise separable convolutions in ASPP and decoder."""
    aspp_channels: int = 256
    """Width of the ASPP."""
    decoder_channels: int = 256
    """Width of the decoder."""
    upsampling: Literal["bilinear", "transposed", "nearest"] = "bilinear"
    """How U-Net's decoder enlarges features; "transposed" is learned."""
    dropout: float = 0.1
    """Dropout before the classifier, 0 to 1."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary head's loss; 0 builds none (0.4 is usual)."""

    init: str | None = None
    """A finished run folder to start the weights from; a head of another size starts fresh."""

    crop_size: tuple[int, int] = (352, 480)
    """Height and width of a training crop, in pixels; what lies outside of an image is ignored."""
    center_crop: bool = False
    """Take the middle of the image (the paper: 224x224) instead of a random scale, crop and
    flip."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.3
    """Brightness jitter, as a fraction up or down."""
    contrast: float = 0.3
    """Contrast jitter, as a fraction up or down."""
    saturation: float = 0.3
    """Saturation jitter, as a fraction up or down."""
    hue: float = 0.0
    """Hue jitter, 0 to 0.5; slow (40 ms an image)."""
    gamma: float = 0.0
    """Gamma jitter: the exponent is drawn from 1 / (1 + gamma) to 1 + gamma."""

    batch_size: int = 8
    """Images a process takes at once."""
    accumulation: int = 1
    """Batches summed up into one optimiser step."""
    num_steps: int = 4000
    """Optimiser steps."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """Optimiser."""
    base_lr: float = 5e-4
    """Learning rate of the new layers at its highest."""
    backbone_lr_factor: float = 1.0
    """Learning rate of the backbone over `base_lr`."""
    momentum: float = 0.9
    """Momentum of SGD and RMSProp; beta1 of Adam and AdamW."""
    weight_decay: float = 0.01
    """Weight decay; norms and biases have none."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate falls after the warm-up."""
    poly_power: float = 0.9
    """Exponent of the poly schedule."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    clip_norm: float = 0.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    batchnorm_decay: float = 0.9
    """Weight that BatchNorm's running statistics keep at each step (the paper: 0.9997)."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are validated and kept; 0 keeps the last weights."""

    class_weights: tuple[float, ...] = ()
    """Weight of each class in the cross-entropy; none means 1 for all."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy, 0 to 1."""
    hard_pixels: float = 1.0
    """Fraction of the labelled pixels, hardest first, that the cross-entropy counts."""
    dice_weight: float = 0.0
    """Weight of the Dice loss that is added to the cross-entropy."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward passes; fp16 needs a GPU."""
    compile: bool = False
    """Compile the network (torch.compile): slower to start, faster to run."""
    num_workers: int = 1
    """Processes that read and augment images; 0 does it in the training process."""
    seed: int = 0
    """Fixes the weights' start, the order, the augmentation and the dropout."""

    validate_every: int = 500
    """Steps between validations; the last step is always validated."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, positive = getattr(self, field.name), field.name in _POSITIVE
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, int | float):
                    continue
                if not 0 <= number < math.inf or (positive and number == 0):
                    least = "over 0" if positive else "0 or more"
                    raise InputError(f"{field.name} is {value}; it must be {least}, and finite")
        for name in ("dropout", "flip", "batchnorm_decay", "ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 < self.hard_pixels <= 1:
            raise InputError(f"hard_pixels is {self.hard_pixels}; it must be over 0 and up to 1")
        if self.hue > 0.5:
            raise InputError(f"hue is {self.hue}; it must be from 0 to 0.5")
        if self.momentum >= 1:
            raise InputError(f"momentum is {self.momentum}; it must be below 1")
        if self.seed >= 1 << 63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63")
        if self.scale[0] > self.scale[1]:
            raise InputError(f"scale is {self.scale}; it must be two factors over 0, smaller first")
        if self.class_weights and not any(self.class_weights):
            raise InputError("class_weights are all 0, so nothing is learned; give one over 0")
        if any(weight and not 1e-9 <= weight <= 1e9 for weight in self.class_weights):
            raise InputError(
                f"class_weights is {self.class_weights}; each must be 0, or from 1e-9 to 1e9"
            )

    def model_options(self, num_classes: int, in_channels: int = 3) -> dict[str, Any]:
        """The arguments of `atrous.models.catalogue.build` for this recipe, JSON-ready."""
        return {
            "name": self.model,
            "num_classes": num_classes,
            "backbone": self.backbone,
            "output_stride": self.output_stride or entry(self.model).output_strides[0],
            "pyramid_scales": list(self.pyramid_scales),
            "fusion_scales": list(self.fusion_scales) or None,
            "atrous_rates": list(self.atrous_rates) or None,
            "image_pooling": self.image_pooling,
            "multi_grid": list(self.multi_grid) or None,
            "auxiliary": self.auxiliary_weight > 0,
            "separable": self.separable,
            "aspp_channels": self.aspp_channels,
            "decoder_channels": self.decoder_channels,
            "upsampling": self.upsampling,
            "dropout": self.dropout,
            "in_channels": in_channels,
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, which `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` wrote.

        Raises:
            InputError: an unknown field, or a value out of its range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(table) - known:
            raise InputError(f"recipe: unknown field {sorted(unknown)[0]!r}")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in table.items()
        }
        return cls(**values)
