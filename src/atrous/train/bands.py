"""What a training starts from where its images have other bands than red, green and blue."""

from pathlib import Path

from atrous.images.bands import Bands
from atrous.models.bands import Colors
from atrous.train import checkpoint
from atrous.train.recipe import Recipe


def bands_of_start(recipe: Recipe, channels: int) -> int:
    """How many bands the network takes whose weights a training of `channels` starts from.

    ImageNet's weights are of three, which are spread afterwards; so are those of a run of three. Of
    a run of any other number, the first convolution cannot be kept.
    """
    if channels == 3:
        return 3
    if recipe.init is not None:
        run = checkpoint.read_json(Path(recipe.init) / "run.json")
        return 3 if run.get("model", {}).get("in_channels", 3) == 3 else channels
    has_weights = recipe.pretrained and recipe.backbone != "none"
    return 3 if has_weights or recipe.backbone_weights is not None else channels


def bands_line(bands: Bands, colors: Colors) -> str:
    """Say which bands a training takes, and as what; nothing if they are not named."""
    parts = []
    if bands.numbers:
        named = zip(bands.numbers, colors, strict=True)
        shown = (f"{i} {'of no known color' if c is None else _NAMES[c]}" for i, c in named)
        parts.append(f"bands: {', '.join(shown)}")
    if bands.value_range is not None:
        parts.append("black {:g}, white {:g}".format(*bands.value_range))
    if len(colors) != 3:
        parts.append("no jitter of saturation and hue")
    return "; ".join(parts)


_NAMES = ("red", "green", "blue")
