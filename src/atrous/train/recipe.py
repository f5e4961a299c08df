"""Recipe: every option of a training, typed and documented."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from atrous.errors import InputError
from atrous.models.catalogue import entry
from atrous.text import typed

__all__ = ["Recipe"]

_MAX = 3e38  # of float32
Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0, le=_MAX)]
Amount = Annotated[float, Meta(ge=0, le=_MAX)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
ViewScale = Annotated[float, Meta(ge=0.1, le=8)]

RENAMED = {"accumulation": "accumulation_steps", "hard_pixels": "ohem_fraction"}
"""Today's names of fields by those in older run.json and scripts."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of a training, except where its data and its run folder are.

    The defaults suit a small data set on any machine; `atrous.train.plan` makes a recipe for a data
    set and a machine, and `atrous.recipes` has tuned ones.
    """

    model: str = "deeplabv3plus"
    """Name of the network; `atrous models` lists them."""
    backbone: str = "tf_efficientnet_lite2"
    """Name of the backbone; `atrous models` lists those that are tested."""
    pretrained: bool = True
    """Start the backbone from ImageNet weights."""
    backbone_weights: str | None = None
    """A checkpoint file of torchvision's or timm's ImageNet classifier to start the backbone from
    instead."""
    output_stride: Literal[8, 16, 32] | None = None
    """Input size over the size of the deepest features; the paper's for the model if left out."""
    pyramid_scales: tuple[Positive, ...] = ()
    """Scales of the image whose features are concatenated, 1 first; none for the image alone."""
    fusion_scales: tuple[Positive, ...] = ()
    """Scales of the image over which DeepLabV2 takes the maximum, 1 first; none for the paper's."""
    atrous_rates: tuple[Count, ...] = ()
    """Rates of the ASPP's 3x3 branches; none for the paper's."""
    pointwise_branch: bool = True
    """Give the ASPP its 1x1 branch."""
    atrous_branches: bool = True
    """Give the ASPP its 3x3 branches."""
    image_pooling: bool = True
    """Give the ASPP its branch of image-level features."""
    multi_grid: tuple[Count, ...] = ()
    """Factors on the dilation of the last stage's blocks; none keeps those of the pretraining."""
    repeated_blocks: Natural = 0
    """Copies of the backbone's last stage before DeepLabV3's ASPP, each dilated twice as much as
    the one before."""
    separable: bool = False
    """Use depthwise separable convolutions in ASPP and decoder."""
    aspp_channels: Count = 256
    """Width of the ASPP."""
    decoder_channels: Count = 256
    """Width of the decoder."""
    upsampling: Literal["bilinear", "transposed", "nearest"] = "bilinear"
    """How U-Net's decoder upsamples features; "transposed" is learned."""
    dropout: Fraction = 0.1
    """Probability of dropout before the classifier, 0 to 1."""
    auxiliary_weight: Amount = 0.0
    """Weight of each auxiliary head's loss; 0 builds none (0.4 is usual)."""
    auxiliary_levels: tuple[Literal[4, 8, 16, 32], ...] = ()
    """Features of the backbone that have an auxiliary head, by their stride without dilation; none
    for 16 alone."""

    init: str | None = None
    """A finished run folder to start the weights from, or a published name; a head of another size
    starts fresh."""

    crop_size: tuple[Count, Count] = (352, 480)
    """Height and width of a training crop, in pixels; pixels outside of the image are ignored."""
    center_crop: bool = False
    """Crop the middle of the image (the paper: 224x224); no random scale, crop and flip."""
    rare_crops: Fraction = 0.0
    """Probability that a crop is moved to hold a pixel of a class of its image, drawn by one over
    the classes' shares of all pixels."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Range of the random scale."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    rotation: Annotated[float, Meta(ge=0, le=180)] = 0.0
    """Largest angle of a random rotation about the crop's centre, in degrees to either side."""
    brightness: Amount = 0.3
    """Brightness jitter, as a fraction up or down."""
    contrast: Amount = 0.3
    """Contrast jitter, as a fraction up or down."""
    saturation: Amount = 0.3
    """Saturation jitter, as a fraction up or down."""
    hue: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Hue jitter, 0 to 0.5; slow on a CPU (40 ms an image)."""
    gamma: Amount = 0.0
    """Gamma jitter: the exponent is drawn from 1 / (1 + gamma) to 1 + gamma."""
    cutmix: Fraction = 0.0
    """Probability that a box of the neighbour in the batch, half as large as the crop, is pasted
    into a crop, with its labels."""
    classmix: Fraction = 0.0
    """Probability that the pixels of half of the neighbour's classes are pasted into a crop, with
    their labels."""

    batch_size: Count = 8
    """Images of each process in a batch."""
    accumulation_steps: Count = 1
    """Batches whose gradients are averaged into one optimiser step."""
    num_steps: Count = 4000
    """Optimiser steps; not used where `minutes` is given."""
    minutes: Amount = 0.0
    """Minutes that the training may take, validations included; the number of steps follows from
    the first of them. 0 for `num_steps`."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """Optimiser."""
    base_lr: Positive = 5e-4
    """Highest learning rate of the layers outside of the backbone."""
    backbone_lr_factor: Amount = 1.0
    """Learning rate of the backbone, as a factor on `base_lr`."""
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    """Momentum of SGD and RMSProp; beta1 of Adam and AdamW."""
    weight_decay: Amount = 0.01
    """Weight decay; norms and biases have none."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate falls after the warm-up."""
    poly_power: Amount = 0.9
    """Exponent of the poly schedule."""
    warmup_steps: Natural = 100
    """Steps over which the learning rate rises from zero."""
    clip_norm: Amount = 0.0
    """Largest norm of the gradient, to which larger ones are scaled down; 0 for no limit."""
    batchnorm_decay: Fraction = 0.9
    """Decay of BatchNorm's running statistics at each step (the paper: 0.9997)."""
    sync_batchnorm: bool = True
    """Where several processes train, normalise over the batch of all of them."""
    ema_decay: Fraction = 0.0
    """Decay of the averaged weights, which are validated and kept; 0 for no average."""

    class_weights: tuple[Amount, ...] | Literal["auto"] = ()
    """Weight of each class in the cross-entropy, 0 or 1e-9 to 1e9; none means 1 for all, auto those
    of median frequency balancing, which the run records."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy, 0 to 1."""
    ohem_fraction: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Fraction of the labelled pixels, hardest first, that the cross-entropy counts (OHEM)."""
    dice_weight: Amount = 0.0
    """Weight of the Dice loss that is added to the cross-entropy."""

    teacher: tuple[str, ...] = ()
    """Run folders of trained networks of the same classes; the student learns their mean
    probabilities, too (distillation)."""
    teacher_weight: Amount = 1.0
    """Weight of the distillation loss that is added to the loss of the labels."""
    teacher_temperature: Positive = 1.0
    """Temperature of the distillation: over 1, unlikely classes count more."""
    teacher_flip: bool = False
    """Average the teachers over each crop and its mirror image."""
    teacher_scales: tuple[ViewScale, ...] = ()
    """Scales of a crop over which the teachers are averaged; none for 1 alone."""
    teacher_views: Natural = 0
    """Crops of each image, without jitter, for which the teachers' outputs are computed once and
    kept in the run folder; 0 computes them for each crop of the training."""
    unlabelled: tuple[str, ...] = ()
    """Folders of photos, or splits of the data set, whose images take part without masks: the
    student learns them from the teachers."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward passes; fp16 needs a GPU."""
    compile: bool = False
    """Compile the network (torch.compile): slower to start, faster to run."""
    cuda_graph: bool = True
    """Capture the training step as a CUDA graph, where it is one: in a single process, on a GPU, in
    fp32 or bf16."""
    deterministic: bool = True
    """On a GPU, use algorithms that give the same bits each time, so that a resume is exact."""
    keep_decoded: bool = True
    """Decode the training images once and keep them, on the GPU or in memory, if they take no more
    than a quarter of what is free there."""
    num_workers: Natural | None = None
    """Processes that read and augment images, 0 for the training process itself; left out, what
    the machine has. Where a GPU augments images that are kept, none is started."""
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Seed of initial weights, order, augmentation and dropout."""

    validate_every: Count = 500
    """Steps between validations; the last step is always validated."""
    checkpoint_every: Count = 100
    """Steps between checkpoints."""
    log_every: Count = 20
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            value = getattr(self, name)
            try:
                plain = json.loads(json.dumps(value))  # numbers of NumPy are floats, tuples lists
                object.__setattr__(self, name, msgspec.convert(plain, kind))
            except msgspec.ValidationError as error:
                reason = str(error).partition(" - at")[0].replace("`", "")
                raise InputError(
                    f"{name} is {typed(value)}; {reason[0].lower()}{reason[1:]}"
                ) from None
        if self.scale[0] > self.scale[1]:
            raise InputError(
                f"scale is {typed(self.scale)}; it must be two factors over 0, smaller first"
            )
        if self.rare_crops and self.center_crop:
            raise InputError("rare_crops moves crops, and center_crop does not; leave out one")
        if self.cutmix or self.classmix:
            self._check_mix()
        weights = () if self.class_weights == "auto" else self.class_weights
        if weights and not any(weights):
            raise InputError("class_weights are all 0, so nothing is learned; give one over 0")
        if any(weight and not 1e-9 <= weight <= 1e9 for weight in weights):
            raise InputError(
                f"class_weights is {typed(weights)}; each must be 0, or from 1e-9 to 1e9"
            )
        for name in ("teacher_views", "unlabelled"):
            if (value := getattr(self, name)) and not self.teacher:
                raise InputError(
                    f"{name} is {typed(value)}, but there is no teacher; give a run as one"
                )
        self._check_heads()

    def _check_heads(self) -> None:
        levels = self.auxiliary_levels
        if levels and not self.auxiliary_weight:
            raise InputError(
                f"auxiliary_levels is {typed(levels)}, but auxiliary_weight is 0; "
                "give one, such as 0.4"
            )
        if len(set(levels)) < len(levels):
            raise InputError(f"auxiliary_levels is {typed(levels)}; name each level once")

    def _check_mix(self) -> None:
        if self.cutmix + self.classmix > 1:
            raise InputError(
                f"cutmix is {self.cutmix} and classmix {self.classmix}; together at most 1"
            )
        if self.batch_size == 1:
            raise InputError("cutmix and classmix mix crops of one batch; give a batch_size over 1")
        if self.teacher_views:
            raise InputError(
                "teacher_views keeps what teachers say of unmixed crops; leave out cutmix and "
                "classmix, or teacher_views"
            )

    def model_options(self, num_classes: int, in_channels: int = 3) -> dict[str, Any]:
        """Return the options that `models.create.config_from_options` takes, JSON-ready."""
        return {
            "name": self.model,
            "num_classes": num_classes,
            "backbone": self.backbone,
            "output_stride": self.output_stride or entry(self.model).output_strides[0],
            "pyramid_scales": list(self.pyramid_scales),
            "fusion_scales": list(self.fusion_scales) or None,
            "atrous_rates": list(self.atrous_rates) or None,
            "pointwise_branch": self.pointwise_branch,
            "atrous_branches": self.atrous_branches,
            "image_pooling": self.image_pooling,
            "multi_grid": list(self.multi_grid) or None,
            "repeated_blocks": self.repeated_blocks,
            "auxiliary": self.auxiliary_weight > 0,
            "auxiliary_levels": list(self.auxiliary_levels) or None,
            "separable": self.separable,
            "aspp_channels": self.aspp_channels,
            "decoder_channels": self.decoder_channels,
            "upsampling": self.upsampling,
            "dropout": self.dropout,
            "in_channels": in_channels,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, which `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` of this or an older version wrote."""
        values = current_names(table)
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise InputError(f"recipe: unknown field {min(unknown)!r}")
        return cls(**values)


def current_names(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a recipe by today's names."""
    return {RENAMED.get(name, name): value for name, value in table.items()}


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe, include_extras=True)
