"""The augmentation as a pipeline of torchvision's transforms, whose crops ours are to the bit."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from atrous.data.sample import Sample
from atrous.train.recipe import Recipe

FILL = {tv_tensors.Image: 127, tv_tensors.Mask: 255}


class RandomScale(v2.Transform):
    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = torch.tensor(scale, dtype=torch.float64).log().tolist()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        factor = torch.empty((), dtype=torch.float64).uniform_(self.low, self.high).exp().item()
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resize(inpt, params["size"], antialias=True)


class RandomGamma(v2.Transform):
    _transformed_types = (tv_tensors.Image,)

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.limit = torch.tensor(1 + gamma).log().item()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"gamma": torch.empty(()).uniform_(-self.limit, self.limit).exp().item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.adjust_gamma(inpt, params["gamma"])


class ColorJitter(v2.ColorJitter):
    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if inpt.shape[-3] == 3:
            return super().transform(inpt, params)
        values = inpt.as_subclass(Tensor).float()
        if (contrast := params["contrast_factor"]) is not None:
            mean = values.mean()
            values = mean + (values - mean) * contrast
        if (brightness := params["brightness_factor"]) is not None:
            values = values * brightness
        return tv_tensors.wrap(values.round().clamp(0, 255).to(inpt.dtype), like=inpt)


class PadTo(v2.Transform):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        missing = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        top, left = missing[0] // 2, missing[1] // 2
        return {"padding": [left, top, missing[1] - left, missing[0] - top]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.pad(inpt, params["padding"], fill=FILL[type(inpt)])


def torchvision_crop(sample: Sample, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """The crop (h, w, C) and its target (h, w)."""
    size = list(recipe.crop_size)
    steps: list[v2.Transform] = [PadTo(recipe.crop_size), v2.CenterCrop(size)]
    if not recipe.center_crop:
        steps = [
            RandomScale(recipe.scale),
            v2.RandomCrop(size, pad_if_needed=True, fill=FILL),
            v2.RandomHorizontalFlip(recipe.flip),
        ]
    steps.append(ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue))
    if recipe.gamma:
        steps.append(RandomGamma(recipe.gamma))
    image = tv_tensors.Image(torch.tensor(sample.image).permute(2, 0, 1))
    mask = tv_tensors.Mask(torch.tensor(sample.label))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image, mask = v2.Compose(steps)(image, mask)
    return image.as_subclass(Tensor).permute(1, 2, 0), mask.as_subclass(Tensor)
