"""Augmentation: Sample -> training crop, with torchvision.transforms.v2.

Each crop has its own seed, so crop number n is the same in any process, and in a resumed training.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from atrous.data.dataset import Sample
from atrous.taxonomy import IGNORE_INDEX
from atrous.train.recipe import Recipe

_FILL = {tv_tensors.Image: 127, tv_tensors.Mask: IGNORE_INDEX}


class RandomScale(v2.Transform):  # type: ignore[misc]
    """Resize by a log-uniform factor: half the size is as likely as twice the size."""

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = torch.tensor(scale, dtype=torch.float64).log().tolist()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the new (height, width)."""
        height, width = F.get_size(flat_inputs[0])
        factor = torch.empty((), dtype=torch.float64).uniform_(self.low, self.high).exp().item()
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize: bilinear for images, nearest for masks."""
        return F.resize(inpt, params["size"], antialias=True)


class RandomGamma(v2.Transform):  # type: ignore[misc]
    """Raise intensities to a power between 1 / (1 + gamma) and 1 + gamma."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.limit = torch.tensor(1 + gamma).log().item()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the exponent."""
        return {"gamma": torch.empty(()).uniform_(-self.limit, self.limit).exp().item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Adjust the gamma of images."""
        return F.adjust_gamma(inpt, params["gamma"])


class ColorJitter(v2.ColorJitter):  # type: ignore[misc]
    """torchvision's ColorJitter for RGB; brightness and contrast only for other bands."""

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Jitter images."""
        if inpt.shape[-3] == 3:
            return super().transform(inpt, params)
        values = inpt.as_subclass(Tensor).float()
        if (contrast := params["contrast_factor"]) is not None:
            mean = values.mean()
            values = mean + (values - mean) * contrast
        if (brightness := params["brightness_factor"]) is not None:
            values = values * brightness
        return tv_tensors.wrap(values.round().clamp(0, 255).to(inpt.dtype), like=inpt)


def augmentation(recipe: Recipe) -> v2.Compose:
    """Return the transforms of (tv_tensors.Image (C, H, W), tv_tensors.Mask (H, W))."""
    size = list(recipe.crop_size)
    if recipe.center_crop:
        # CenterCrop pads with zeros, which would be class 0: pad with the ignored label first.
        steps: list[v2.Transform] = [_PadTo(recipe.crop_size), v2.CenterCrop(size)]
    else:
        steps = [
            RandomScale(recipe.scale),
            v2.RandomCrop(size, pad_if_needed=True, fill=_FILL),
            v2.RandomHorizontalFlip(recipe.flip),
        ]
    steps.append(ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue))
    if recipe.gamma:
        steps.append(RandomGamma(recipe.gamma))
    return v2.Compose(steps)


def augment(sample: Sample, transforms: v2.Compose, seed: int) -> tuple[Tensor, Tensor]:
    """Return a training crop.

    Args:
        sample: the image and its label.
        transforms: from `augmentation`.
        seed: of all draws; the global random state is not changed.

    Returns:
        image (h, w, C) uint8 and target (h, w) uint8 with 255 = ignored.
    """
    image = tv_tensors.Image(torch.tensor(sample.image).permute(2, 0, 1))  # (C, H, W)
    mask = tv_tensors.Mask(torch.tensor(sample.label))  # (H, W)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image, mask = transforms(image, mask)
    return image.as_subclass(Tensor).permute(1, 2, 0).contiguous(), mask.as_subclass(Tensor)


class _PadTo(v2.Transform):  # type: ignore[misc]
    """Pad evenly to at least `size`, images with grey and masks with the ignored label."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        missing = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        top, left = missing[0] // 2, missing[1] // 2
        return {"padding": [left, top, missing[1] - left, missing[0] - top]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.pad(inpt, params["padding"], fill=_FILL[type(inpt)])
