"""DeepLabV2: parallel atrous convolutions whose scores are summed, over several sizes of the image.

Paper: Chen et al. 2016, arXiv:1606.00915, section 3.2 (ASPP-L) and 4.1.2 (three scales, 1, 0.75 and
0.5, and the largest score of any). Departures:

- sizes and strides are `network.Network`'s; the paper's output stride is 8;
- training, too, sees only the fused scores: the loss is theirs. The authors' code adds the losses
  of each scale's own scores;
- no dense CRF within the network.

`atrous.models.catalogue.build` documents the options.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.layers import AuxiliaryHead
from atrous.models.network import Network
from atrous.models.pyramid import Concatenation, Maximum


class DeepLabV2(Network):
    """The sum of atrous convolutions of the last features to the classes."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 8,
        fusion_scales: Sequence[float] = (1.0, 0.75, 0.5),
        atrous_rates: Sequence[int] = (6, 12, 18, 24),
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=output_stride,
        )
        self.num_classes = num_classes
        channels = self.backbone.channels
        self.branches = nn.ModuleList(
            _branch(channels[32], num_classes, rate) for rate in atrous_rates
        )
        self.head = nn.Identity()
        self.fusion = Maximum(fusion_scales)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the summed scores, (B, K, h, w) at the output stride."""
        first, *others = self.branches
        scores: Tensor = first(features[32])
        for branch in others:
            scores = scores + branch(features[32])
        return scores

    def put_into_pyramid(self, scales: Sequence[float]) -> None:
        """Concatenate the scores of several sizes, in place of their maximum."""
        self.fusion = Concatenation(self.num_classes, scales)


def _branch(inputs: int, num_classes: int, rate: int) -> nn.Conv2d:
    """An atrous convolution to the classes that starts from almost equal scores."""
    conv = nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
