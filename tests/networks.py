"""Networks for tests, by the flat options that recipes and run.json have."""

from atrous.models.bands import take_bands
from atrous.models.create import config_from_options, create_model
from atrous.models.network import Network
from atrous.weights.imagenet import load_pretrained


def build(name: str, *, num_classes: int, pretrained: bool = False, **options: object) -> Network:
    """Build a network, as a training does; with ImageNet weights, these are spread over bands."""
    channels = options.pop("in_channels", 3) if pretrained else 3
    network = create_model(config_from_options({"name": name, **options}), num_classes)
    if pretrained:
        load_pretrained(network)
    if channels != 3:
        take_bands(network, (None,) * int(str(channels)), keep_weights=True)
    return network
