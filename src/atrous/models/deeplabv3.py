"""DeepLabV3: an atrous spatial pyramid on dilated features.

Paper: Chen et al. 2017, arXiv:1706.05587. Departures:

- sizes and strides are `network.Network`'s;
- the atrous rates are used as given; the paper doubles them at output stride 8;
- the backbone is any; an auxiliary head can be added.
"""

from dataclasses import dataclass, field

from torch import Tensor

from atrous.models.backbones import Backbone
from atrous.models.layers import ASPP, Classifier
from atrous.models.network import Network

__all__ = ["DeepLabV3"]


class DeepLabV3(Network):
    """Backbone, ASPP, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of DeepLabV3."""

        name = "deeplabv3"
        aspp: ASPP.Config = field(default_factory=ASPP.Config)
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=config.backbone.output_stride)
        width = config.aspp.channels
        self.aspp = ASPP(self.backbone.channels[32], config.aspp)
        self.aspp_convs = config.aspp.spatial_convs(config.aspp.convs, width, width)
        self.head = Classifier(width, num_classes, config.dropout)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the pyramid, (B, A, h, w) at the output stride."""
        return self.aspp_convs(self.aspp(features[32]))
