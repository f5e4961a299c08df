"""plan(): a recipe that fits a data set and a machine, with a reason for each choice.

The idea is nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): what good trainings
share is fixed, and what depends on the data follows from a few numbers of them by rules, without a
search. Departures: the fixed part is that of the recipe `camvid`, the backbone is pretrained, the
scale of the images is never changed for good (a network labels them at native size), and there is
no ensemble.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import fields, replace
from math import ceil, inf, sqrt
from typing import Any, NamedTuple

from atrous.data.dataset import Dataset
from atrous.infer.tiling import WHOLE_PIXELS
from atrous.models.create import config_from_options, options_of
from atrous.progress import Track, untracked
from atrous.text import amount
from atrous.train.machine import Machine
from atrous.train.memory import bytes_per_pixel
from atrous.train.network import read_init
from atrous.train.recipe import Recipe
from atrous.train.survey import Survey, survey

__all__ = ["Choice", "Plan", "plan"]

_FIXED = {
    "dice_weight": 1.0,
    "base_lr": 1e-3,
    "backbone_lr_factor": 0.5,
    "weight_decay": 0.02,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "gamma": 0.5,
    "ema_decay": 0.998,
}
"""Fields that do not depend on the data, as in the recipe `camvid`, which shipped."""
_CELL = 32
"""Sides of crops are multiples of the coarsest features' stride, so that nothing is padded."""
_CROP_PIXELS = {"cpu": 384 * 512, "cuda": 512 * 1024, "mps": 384 * 512}
"""Largest crop: VOC's whole images where steps are slow, Cityscapes' usual crop on a GPU."""
_BATCH = {"cpu": 8, "cuda": 16, "mps": 8}
"""Crops of a batch: 16, DeepLab's, on a GPU; half of it where steps are slow."""
_LEAST_BATCH = 4
"""The crop shrinks before the batch gets smaller: BatchNorm needs several images."""
_MEMORY_SHARE = 0.5
"""Part of the memory for activations; the rest is for gradients of them, weights and kernels."""
_FEWEST_CELLS = 12
"""Features of a crop with fewer cells on a side, at output stride 16, are made at 8."""
_PAPER_CELLS, _PAPER_RATE = 33, 6
"""DeepLabV3's crop of 513 has 33 cells at stride 16; its rates are 6 times 1, 2 and 3."""
_THINNEST = 8
"""Objects that are thinner than two cells of DeepLabV3+'s logits are hardly seen."""
_SMALLEST_SCALE = 0.5
"""DeepLab's smallest random scale; its largest is 2."""
_RARE, _RARE_CROPS = 0.01, 0.33
"""A class with a smaller part of the pixels is rare; nnU-Net's part of crops that hold one."""
_EPOCHS = 140
"""How often each part of an image is seen: as often as in the recipe `camvid`."""
_STEPS = {"cpu": (500, 2_000), "cuda": (1_000, 20_000), "mps": (500, 2_000)}
"""Fewest steps, which a small set needs, too, and most, where nobody waits for more."""
_VALIDATIONS, _VALIDATION_SHARE = 5, 0.2
"""Most validations, and the part that they may have of the pixels that the network sees."""
_LINE, _COLUMN = 80, 31
"""Letters of a printed line, and of its first column."""


class Choice(NamedTuple):
    """What a plan chose, and why."""

    options: str
    """As options of `atrous train`; empty for a remark."""
    reason: str

    def lines(self) -> str:
        """Return the choice as lines of at most 80 letters."""
        options = self.options.replace(" --", "\n--").splitlines() or [""]
        left = [line for option in options for line in _wrapped(option, _COLUMN - 1)]
        right = _wrapped(self.reason, _LINE - _COLUMN)
        count = max(len(left), len(right))
        pairs = zip(*(side + [""] * (count - len(side)) for side in (left, right)), strict=True)
        return "\n".join(f"{option:{_COLUMN}}{reason}".rstrip() for option, reason in pairs)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


class Plan(NamedTuple):
    """A recipe, and how it came about."""

    recipe: Recipe
    choices: tuple[Choice, ...]


def plan(
    dataset: Dataset,
    given: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    track: Track = untracked,
) -> Plan:
    """Plan a training on the split train of a data set.

    Args:
        dataset: with a split train and maybe val.
        given: fields of the recipe that are set by hand; they win, and the rest follows them. With
            `init`, the network is that of the run that it names.
        machine: that trains; this one if left out.
        track: shows the progress of reading masks.
    """
    unlabelled = Recipe(**given or {}).unlabelled  # fails before masks are read
    given = dict(given or {})
    if given.get("init") is not None:
        given = network_of(given["init"]) | given
    with track("masks surveyed") as progress:
        facts = survey(dataset, progress, unlabelled)
    return plan_from(facts, dataset.taxonomy.num_classes, machine or Machine.here(), given)


def plan_from(
    facts: Survey, num_classes: int, machine: Machine, given: Mapping[str, Any] | None = None
) -> Plan:
    """Plan as `plan` does, from the numbers of a data set with `num_classes` classes."""
    draft = _Draft(Recipe(**given or {}), frozenset(given or {}))
    kind = machine.device if machine.device in _BATCH else "cpu"
    draft.choose("fixed, as in the recipe camvid", **_FIXED)
    _choose_precision(draft, machine)
    options = options_of(config_from_options(draft.recipe.model_options(1)), 1)
    has_aspp = "separable" in options
    if has_aspp:
        _choose_width(draft, kind, has_decoder="decoder_channels" in options)
    _choose_crop_and_batch(draft, facts, machine, kind, num_classes)
    _choose_scale(draft, facts)
    if has_aspp:
        _choose_context(draft, facts)
    _choose_rare_crops(draft, facts)
    _choose_steps(draft, facts, machine, kind)
    _remark(draft, facts, machine)
    return Plan(draft.recipe, tuple(draft.choices))


class _Draft:
    """A recipe whose fields are chosen one after the other, unless they are given."""

    def __init__(self, recipe: Recipe, given: frozenset[str]) -> None:
        self.recipe, self.given = recipe, given
        self.choices: list[Choice] = []

    def choose(self, reason: str, **values: Any) -> None:
        """Set the fields that are not given."""
        free = {name: value for name, value in values.items() if name not in self.given}
        if free:
            self.recipe = replace(self.recipe, **free)
            written = " ".join(_option(name, value) for name, value in free.items())
            self.choices.append(Choice(written, reason))

    def remark(self, text: str) -> None:
        """Say what no option follows from."""
        self.choices.append(Choice("", text))


def _choose_precision(draft: _Draft, machine: Machine) -> None:
    device = {"cuda": "GPU", "cpu": "processor"}.get(machine.device, "device")
    verb = "computes" if machine.bf16 else "does not compute"
    draft.choose(f"the {device} {verb} in bf16", precision="bf16" if machine.bf16 else "fp32")


def _choose_width(draft: _Draft, kind: str, *, has_decoder: bool) -> None:
    if kind == "cuda":
        draft.choose("as in the model that ships", separable=True)
        return
    draft.choose("a dense ASPP takes more than twice as long on a processor", separable=True)
    widths = {"aspp_channels": 128} | ({"decoder_channels": 128} if has_decoder else {})
    draft.choose("narrow, since steps are slow", **widths)


def _choose_crop_and_batch(
    draft: _Draft, facts: Survey, machine: Machine, kind: str, num_classes: int
) -> None:
    """Take whole images, up to what the memory or the time allows, then as many as fit."""
    needed = bytes_per_pixel(draft.recipe, num_classes)
    room = int(machine.memory * _MEMORY_SHARE / needed)  # pixels
    least = draft.recipe.batch_size if "batch_size" in draft.given else _LEAST_BATCH
    most = min(_CROP_PIXELS[kind], room // least)
    crop = crop_size(facts.size, most)
    height, width = facts.size
    named = f"{width}x{height} pixels is the median of {amount(facts.masks, 'mask')}"
    if crop == crop_size(facts.size):
        why = f"{named}; sides are multiples of {_CELL}"
    elif most < _CROP_PIXELS[kind]:
        why = f"{named}; memory is for {least} crops of {most:,} pixels"
    else:
        why = f"{named}; a step of larger crops would be slow"
    draft.choose(why, crop_size=crop)
    fitting = room // _area(draft.recipe.crop_size)
    batch = min(_BATCH[kind], max(fitting, 1))
    why = "as many as memory has room for" if batch < _BATCH[kind] else "memory has room for it"
    draft.choose(why, batch_size=batch)


def _choose_scale(draft: _Draft, facts: Survey) -> None:
    """Shrink no image so far that most classes are thinner than a cell of the logits."""
    width = facts.object_width
    smallest = _SMALLEST_SCALE
    if width is not None:
        smallest = round(min(max(_THINNEST / width, smallest), 1.0), 2)
        named = f"half of the classes are less than {width:.0f} pixels wide"
    if smallest == _SMALLEST_SCALE:
        draft.choose("DeepLab's; objects stay large enough", scale=(smallest, 2.0))
    else:
        draft.choose(f"{named}: smaller, they are hardly seen", scale=(smallest, 2.0))


def _choose_context(draft: _Draft, facts: Survey) -> None:
    """Fit output stride, rates and image pooling to the crop."""
    crop = draft.recipe.crop_size
    small = min(crop) < _FEWEST_CELLS * 16
    why = "a small crop has few cells at 16" if small else "the paper's; the crop has cells enough"
    draft.choose(why, output_stride=8 if small else 16)
    stride = draft.recipe.output_stride or 16
    cells = sum(crop) / 2 / stride
    # A rate reaches no further than in the paper, which doubles it at stride 8.
    unit = max(1, min(round(_PAPER_RATE * cells / _PAPER_CELLS), _PAPER_RATE * 16 // stride))
    why = f"the paper's 6 12 18 on {_PAPER_CELLS} cells, for about {cells:.0f} cells"
    if draft.recipe.atrous_branches:
        draft.choose(why, atrous_rates=(unit, 2 * unit, 3 * unit))
    if _is_part(draft, facts):
        why = "the mean of a crop is not that of a much larger image"
        draft.choose(why, image_pooling=False)


def _choose_rare_crops(draft: _Draft, facts: Survey) -> None:
    """Lay crops around rare classes, where a crop shows a small part of an image, as nnU-Net does.

    Where crops are whole images, the Dice loss alone lets all classes count alike.
    """
    rarest = min((share for share in facts.shares if share), default=1.0)
    if _is_part(draft, facts) and rarest < _RARE and not draft.recipe.center_crop:
        why = f"the rarest class has {100 * rarest:.2g} % of the pixels; few crops hold it"
        draft.choose(why, rare_crops=_RARE_CROPS)


def _choose_steps(draft: _Draft, facts: Survey, machine: Machine, kind: str) -> None:
    """Choose the number of steps, unless the time decides, and what follows from it."""
    recipe = draft.recipe
    area = _area(recipe.crop_size)
    crops = facts.images * max(1.0, facts.pixels / area)  # in which each pixel is seen once
    batch = recipe.batch_size * recipe.accumulation_steps * machine.processes
    wanted, (fewest, most) = _EPOCHS * crops / batch, _STEPS[kind]
    steps = 10 * round(min(max(wanted, fewest), most) / 10)
    if recipe.minutes:
        draft.remark("the number of steps follows from the time")
    else:
        epochs = steps * batch / crops
        why = f"each part of {amount(facts.images, 'image')} is seen about {epochs:,.0f} times"
        if wanted > most:
            why += "; more steps would take long"
        draft.choose(why, num_steps=steps)
        steps = draft.recipe.num_steps
    why = "a sixteenth of the steps, up to 200"
    if recipe.minutes:
        why = "at most; a tenth of the steps, once they are known"
    draft.choose(why, warmup_steps=min(max(steps // 16, 1), 200))
    times = _VALIDATIONS
    if facts.validation_images:
        seen = steps * batch * area
        affordable = _VALIDATION_SHARE * seen / (facts.validation_images * facts.pixels)
        times = min(max(int(affordable), 1), _VALIDATIONS)
    every = ceil(steps / times)
    why = "and after the last step" if recipe.minutes else f"{amount(times, 'validation')} in all"
    draft.choose(why, validate_every=every)


def _remark(draft: _Draft, facts: Survey, machine: Machine) -> None:
    """Say what the machine settles at each start, and what the user may want to know."""
    if draft.recipe.init is not None:
        draft.remark(f"the network is that of {draft.recipe.init}")
    if "num_workers" not in draft.given:
        draft.remark(f"{amount(machine.workers, 'process', 'processes')} for reading images")
    if facts.pixels > WHOLE_PIXELS:
        draft.remark("images of over 4 million pixels are labelled in tiles (docs/large-images.md)")
    crop = draft.recipe.crop_size
    if facts.object_width is not None and facts.object_width > max(crop):
        draft.remark(
            f"objects are {facts.object_width:,.0f} pixels wide, more than a crop: with smaller "
            "images the network would see them whole"
        )


def network_of(run: str) -> dict[str, Any]:
    """Return the fields of a recipe that make the network of a run folder again."""
    options = read_init(run).model
    names = {field.name for field in fields(Recipe)} - {"auxiliary_levels"}  # heads are not kept
    kept = {name: options[name] for name in names & options.keys()}
    given = {name: value for name, value in kept.items() if value is not None}
    return {"model": options["name"], **given}


def crop_size(size: tuple[int, int], most: float = inf) -> tuple[int, int]:
    """Return an image's (height, width) in multiples of 32 from 64 on, shrunk to `most` pixels.

    >>> crop_size((360, 480), 200_000), crop_size((2000, 3000), 200_000), crop_size((28, 28), 9000)
    ((352, 480), (352, 544), (64, 64))
    """
    height, width = (max(round(side / _CELL), 2) * _CELL for side in size)
    if height * width > most:
        factor = sqrt(most / _area(size)) / _CELL
        height, width = (max(int(side * factor), 2) * _CELL for side in size)
        # of a narrow image, whose short side stays 64, the long side is cut
        longest = max(int(most) // min(height, width) // _CELL, 2) * _CELL
        height, width = min(height, longest), min(width, longest)
    return height, width


def _is_part(draft: _Draft, facts: Survey) -> bool:
    """Return whether a crop is less than half of the median image."""
    return facts.pixels > 2 * _area(draft.recipe.crop_size)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _option(name: str, value: Any) -> str:
    """Return a field of a recipe as an option of `atrous train`."""
    written = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return written if value else f"--no-{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return " ".join([written, *(f"{each:g}" for each in value)])
    return f"{written} {value}"
