"""The network that a training starts with, and its weights."""

from pathlib import Path

from torch import nn

from atrous.errors import InputError
from atrous.models.bands import Colors, take_bands
from atrous.models.create import config_from_options, create_model
from atrous.run import Run, has_run, load_weights
from atrous.train.recipe import Recipe
from atrous.weights.imagenet import load_classifier, load_pretrained


def start_network(
    recipe: Recipe,
    num_classes: int,
    colors: Colors,
    network: nn.Module | None = None,
    *,
    fresh: bool = True,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network of a recipe with the weights that the recipe names.

    Args:
        recipe: names the network and its weights.
        num_classes: K.
        colors: colours of the image's channels.
        network: used instead of the recipe's.
        fresh: False for a resume, whose weights are loaded later.

    Returns:
        The network, and the unused tensors of `backbone_weights`.
    """
    if fresh and recipe.init is not None:
        read_init(recipe.init)  # fails before a network is built
    channels = len(colors)
    left_over: tuple[str, ...] = ()
    first = _channels_of_weights(recipe, channels) if network is None and fresh else channels
    if network is None:
        chosen = recipe.init or recipe.backbone_weights
        pretrained = fresh and recipe.pretrained and chosen is None
        options = recipe.model_options(num_classes, first)
        built = network = create_model(config_from_options(options), num_classes)
        if pretrained:
            load_pretrained(built)
    if fresh and recipe.backbone_weights is not None:
        left_over = load_classifier(network, Path(recipe.backbone_weights))
    if fresh and recipe.init is not None:
        load_matching_weights(network, Path(recipe.init))
    if first != channels:
        take_bands(network, colors, keep_weights=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1 - recipe.batchnorm_decay
    return network, left_over


def read_init(run: str) -> Run:
    """Read the run.json of the run folder that a recipe's `init` names."""
    if not has_run(run):
        raise InputError(
            f"--init {run}: no run folder; give one, since a bundle cannot be trained further"
        )
    return Run.read(run)


def load_matching_weights(network: nn.Module, run: Path) -> None:
    """Copy the best weights of a run into `network` where name and shape agree."""
    ours = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in load_weights(run).items()
        if name in ours and ours[name].shape == tensor.shape
    }
    if not fitting:
        raise InputError(f"{run}: no weight fits this network; use the same model and backbone")
    network.load_state_dict(fitting, strict=False)


def _channels_of_weights(recipe: Recipe, channels: int) -> int:
    """Return the input channels of the weights that a training on `channels` starts from.

    ImageNet's weights, and those of a run on colours, have three channels, which are spread over
    the bands afterwards. The first convolution of a run with another number cannot be kept.
    """
    if channels == 3:
        return 3
    if recipe.init is not None:
        return 3 if read_init(recipe.init).in_channels == 3 else channels
    has_weights = recipe.pretrained and recipe.backbone != "none"
    return 3 if has_weights or recipe.backbone_weights is not None else channels
