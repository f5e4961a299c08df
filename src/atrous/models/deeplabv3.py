"""DeepLabV3: an atrous spatial pyramid on dilated features.

Paper: Chen et al. 2017, arXiv:1706.05587. Departures:

- sizes and strides are `network.Network`'s;
- the atrous rates are used as given; the paper doubles them at output stride 8;
- the backbone is any; an auxiliary head can be added;
- the ASPP can follow copies of the last stage; the paper has these only without an ASPP.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.cascade import repeated_stages
from atrous.models.layers import ASPP, Classifier
from atrous.models.network import Network

__all__ = ["DeepLabV3"]


class DeepLabV3(Network):
    """Backbone, its last stage repeated if asked for, ASPP, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of DeepLabV3."""

        name = "deeplabv3"
        aspp: ASPP.Config = field(default_factory=ASPP.Config)
        repeated_blocks: int = 0
        """Copies of the backbone's last stage before the ASPP, as blocks 5 to 7 of the cascade."""
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=config.backbone.output_stride)
        self.repeated_blocks = config.repeated_blocks
        self.multi_grid = config.backbone.multi_grid or (1,)
        self.backbone_loaded()
        width = config.aspp.channels
        self.aspp = ASPP(self.backbone.channels[32], config.aspp)
        self.aspp_convs = config.aspp.spatial_convs(config.aspp.convs, width, width)
        self.head = Classifier(width, num_classes, config.dropout)
        self.finish(config, num_classes)

    def backbone_loaded(self) -> None:
        """Build the repetitions from the last stage as it is now."""
        stages = repeated_stages(self.backbone, self.repeated_blocks, self.multi_grid)
        self.blocks = nn.Sequential(*stages)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the pyramid, (B, A, h, w) at the output stride."""
        return self.aspp_convs(self.aspp(self.blocks(features[32])))
