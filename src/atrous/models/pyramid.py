"""Image pyramid: one network sees several scales of the image, and its features are merged.

Papers: Farabet et al. 2013 (doi:10.1109/TPAMI.2012.231), where the features of all scales are
concatenated and classified by one 1x1 convolution; Chen et al. 2016a (DeepLabV2, arXiv:1606.00915),
where each pixel keeps the largest score of any scale. Departure: the convolution of `Concatenation`
returns as many features as one scale has, and the network's own head follows, so that any network
can have a pyramid. It starts as the network without one.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.layers import resize


class Fusion(nn.Module):
    """Features of several scales of the image, merged by the subclass."""

    def __init__(self, scales: Sequence[float]) -> None:
        """Take the scales, 1 first: multiples of 1/4 up to 2.

        At these scales, sides of padded images and of features are whole numbers.
        """
        super().__init__()
        if not scales or scales[0] != 1:
            raise InputError(f"scales {tuple(scales)}: begin with 1, such as 1 0.5")
        if any(scale * 4 not in range(1, 9) for scale in scales):
            raise InputError(f"scales {tuple(scales)}: give multiples of 0.25, up to 2")
        self.others = tuple(scales[1:])

    def merge(self, features: list[Tensor]) -> Tensor:  # each (B, C, h, w) -> (B, C, h, w)
        """Merge the features of all scales, in the order of the scales."""
        raise NotImplementedError

    def forward(
        self, features: Tensor, image: Tensor, decode: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Merge the features of `image` with those of its other scales.

        Args:
            features: (B, C, h, w), those of `image` itself.
            image: (B, 3, H, W), padded to a multiple of the output stride.
            decode: an image of any size to its features, at the stride of `features`.
        """
        height, width = features.shape[-2:]
        all_scales = [features]
        for scale in self.others:
            enlarged = resize(decode(resize(image, scale)), 1 / scale)  # at least (h, w)
            all_scales.append(enlarged[..., :height, :width])
        return self.merge(all_scales)


class Concatenation(Fusion):
    """A 1x1 convolution over the features of all scales; it starts as the first scale's."""

    def __init__(self, channels: int, scales: Sequence[float]) -> None:
        """Take the channels of one scale's features, and the scales."""
        super().__init__(scales)
        self.conv = nn.Conv2d(channels * len(scales), channels, 1)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def merge(self, features: list[Tensor]) -> Tensor:  # each (B, C, h, w) -> (B, C, h, w)
        """Convolve the features side by side."""
        return self.conv(torch.cat(features, dim=1))


class Maximum(Fusion):
    """The largest value of any scale."""

    def merge(self, features: list[Tensor]) -> Tensor:  # each (B, C, h, w) -> (B, C, h, w)
        """Take the maximum."""
        return reduce(torch.maximum, features)
