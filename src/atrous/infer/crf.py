"""Dense CRF: labels that follow an image's edges (Kraehenbuehl and Koltun 2011, arXiv:1210.5644).

Every two pixels attract each other's labels (Potts): the more, the nearer they are in place and
colour (the appearance kernel) and in place alone (the smoothness kernel). In each iteration of mean
field inference the classes' probabilities pass through both Gaussian filters, and the result is
added to the logits. `atrous.kernels.crf` has the filters.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.photos import shown
from atrous.infer.upsample import Labels, upsample_logits
from atrous.kernels.crf import Kernel, mean_field

_MAX_BYTES = 8 << 30
"""Memory for one image."""


@dataclass(frozen=True, kw_only=True)
class Crf:
    """How strongly pixels attract each other, and from how far."""

    name: str
    """The name in descriptions of results."""
    appearance: float
    """Weight of the kernel of places and colours."""
    position: float
    """Its standard deviation in pixels (sigma alpha)."""
    color: float
    """Its standard deviation in steps of 8-bit colours (sigma beta)."""
    smoothness: float
    """Weight of the kernel of places alone."""
    distance: float
    """Its standard deviation in pixels (sigma gamma)."""
    iterations: int
    """Iterations of mean field."""


# fmt: off
_PUBLISHED = (
    # run_densecrf.sh of DeepLab's first release. Chen et al. 2016, arXiv:1606.00915, section 4.1,
    # search appearance 3 to 6, position 30 to 100 and color 3 to 6 for each network.
    Crf(name="deeplab", appearance=4, position=49, color=5,
        smoothness=3, distance=3, iterations=10),
    # kazuto1011/deeplab-pytorch; DeepLab v2's for ResNet-101
    Crf(name="kazuto", appearance=4, position=67, color=3,
        smoothness=3, distance=1, iterations=10),
    # dense_inference.cpp, the demo of the authors' code
    Crf(name="kraehenbuehl", appearance=10, position=80, color=13,
        smoothness=3, distance=3, iterations=5),
)
# fmt: on
CRFS = {crf.name: crf for crf in _PUBLISHED}
"""The published parameters by name."""


def crf_named(name: str) -> Crf:
    """Return published parameters."""
    if name not in CRFS:
        raise InputError(f"--crf {name}: no such parameters; take {', '.join(CRFS)}")
    return CRFS[name]


def crf_labels(
    logits: NDArray[np.float32],
    stride: int,
    image: NDArray[np.uint8],
    crf: Crf,
    threads: int | None = None,
    *,
    aligned: bool = False,
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the refined labels (H, W) of an image and their probabilities (H, W).

    Args:
        logits: (K, h, w), of a network, as `logits_to_labels` takes them.
        stride: of the network.
        image: (H, W, C); of more than three channels the first three count.
        crf: the parameters.
        threads: by default as many as this process may run on.
        aligned: the logits' cells lie on pixels.
    """
    size = image.shape[0], image.shape[1]
    needed = size[0] * size[1] * (24 * len(logits) + 500)  # docs/crf.md has the measurements
    if needed > _MAX_BYTES:
        raise InputError(
            f"{size[1]}x{size[0]} pixels of {len(logits)} classes take {needed / 2**30:.1f} GiB "
            f"with --crf, over the allowed {_MAX_BYTES / 2**30:g}; make the image smaller"
        )
    full = upsample_logits(logits, stride, size, aligned=aligned)
    beliefs = dense_crf(full, image, crf, threads)
    labels = beliefs.argmax(0).astype(np.uint8 if len(logits) <= 256 else np.uint16)
    return labels, beliefs.max(0)


def dense_crf(
    logits: NDArray[np.float32],
    image: NDArray[np.uint8],
    crf: Crf,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the probabilities (K, H, W) of the classes after mean field inference.

    Args:
        logits: (K, H, W), neither NaN nor infinite; or logarithms of probabilities, since adding a
            number to all classes of a pixel changes nothing.
        image: (H, W, C); of more than three channels the first three count.
        crf: the parameters.
        threads: by default as many as this process may run on; they do not change the result.
    """
    return mean_field(logits, crf_kernels(logits, image, crf), crf.iterations, threads)


def crf_kernels(
    logits: NDArray[np.float32], image: NDArray[np.uint8], crf: Crf
) -> tuple[Kernel, Kernel]:
    """Return the appearance and the smoothness kernel of an image (H, W, C)."""
    image = shown(image)
    if logits.ndim != 3 or logits.size == 0 or image.shape != (*logits.shape[1:], 3):
        raise ValueError(f"logits {logits.shape} and image {image.shape} do not go together")
    if not logits.max() < np.inf:  # one such pixel would spread over the image
        raise InputError("dense CRF: the network gives NaN or infinite logits; take other weights")
    y, x = np.indices(image.shape[:2], np.float32).reshape(2, -1)  # (N,) each
    colors = image.reshape(-1, 3).T.astype(np.float32)  # (3, N)
    position, color, distance = np.array([crf.position, crf.color, crf.distance], np.float32)
    appearance = _elevated(np.stack([x / position, y / position, *(colors / color)]))
    smoothness = _elevated(np.stack([x / distance, y / distance]))
    return Kernel(crf.appearance, appearance), Kernel(crf.smoothness, smoothness)


def _elevated(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale features (d, N) so that the lattice's blur is that of a Gaussian of deviation 1.

    Coordinates that do not fit into a key, or are not exact in float32, are refused.
    """
    count = len(features)
    deviation = np.float32(sqrt(2 / 3) * (count + 1))
    steps = [1 / sqrt((i + 1) * (i + 2)) * deviation for i in range(count)]
    features = features * np.array(steps, np.float32)[:, None]
    most = np.abs(features).max(1)
    reach = np.max([most.sum(), *(most * np.arange(1, count + 1))]) + 4 * (count + 1)
    if not reach < 1 << min(60 // count - 1, 18):  # NaN is refused, too
        raise InputError("dense CRF: a standard deviation is too small for this image; enlarge it")
    return features
