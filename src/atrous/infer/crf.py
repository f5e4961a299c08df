"""Dense CRF: labels that follow an image's edges (Kraehenbuehl and Koltun 2011, arXiv:1210.5644).

Every two pixels attract each other's labels (Potts): the more, the nearer they are in place and
colour (the appearance kernel) and in place alone (the smoothness kernel). In each iteration of mean
field inference the classes' probabilities pass through both Gaussian filters, and what comes out is
added to the logits. A filter is a permutohedral lattice (Adams et al. 2010): features of d
dimensions lie in a plane of d + 1 coordinates, which simplices fill; the values of a pixel are
shared out among the corners of its simplex, blurred along each axis, and collected again. Both are
normalised symmetrically, as in the authors' second version and in pydensecrf2.

The loops are C (kernels/crf.c); `dense_crf_reference` says the same in NumPy, and stands in for
them where no built library fits the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.photos import shown
from atrous.infer.upsample import Labels, photo_logits
from atrous.kernels.crf import Kernel, is_compiled, mean_field

_MOST_BYTES = 8 << 30
"""Of memory for one image."""

Filter = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values (N, K) of all pixels to what the others send them."""


@dataclass(frozen=True, kw_only=True)
class Crf:
    """How strongly pixels attract each other, and from how far."""

    name: str
    """What results call it."""
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
    """Of mean field."""


_PUBLISHED = (
    # run_densecrf.sh of DeepLab's first release. Chen et al. 2016, arXiv:1606.00915, section 4.1,
    # search appearance 3 to 6, position 30 to 100 and color 3 to 6 for each network.
    Crf(
        name="deeplab",
        appearance=4,
        position=49,
        color=5,
        smoothness=3,
        distance=3,
        iterations=10,
    ),
    # kazuto1011/deeplab-pytorch; DeepLab v2's for ResNet-101
    Crf(
        name="kazuto",
        appearance=4,
        position=67,
        color=3,
        smoothness=3,
        distance=1,
        iterations=10,
    ),
    # dense_inference.cpp, the demo of the authors' code
    Crf(
        name="kraehenbuehl",
        appearance=10,
        position=80,
        color=13,
        smoothness=3,
        distance=3,
        iterations=5,
    ),
)
CRFS = {crf.name: crf for crf in _PUBLISHED}
"""The published parameters."""


def crf_named(name: str) -> Crf:
    """Return published parameters.

    Raises:
        InputError: there are none of this name.
    """
    if name not in CRFS:
        raise InputError(f"--crf {name}: no such parameters; take {', '.join(CRFS)}")
    return CRFS[name]


def crf_labels(
    logits: NDArray[np.float32],
    stride: int,
    image: NDArray[np.uint8],
    crf: Crf,
    threads: int | None = None,
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the refined labels (H, W) of a photo, and how probable each is, (H, W), 0 to 1.

    Args:
        logits: (K, h, w), of a network, as `photo_labels` takes them.
        stride: of the network.
        image: (H, W, C); of more than three channels the first three count.
        crf: the parameters.
        threads: how many to compute in; by default as many as this process may run on.

    Raises:
        InputError: the image is too large.
    """
    size = image.shape[0], image.shape[1]
    needed = crf_bytes(len(logits), size)
    if needed > _MOST_BYTES:
        raise InputError(
            f"{size[1]}x{size[0]} pixels of {len(logits)} classes take {needed / 2**30:.1f} GiB "
            f"with --crf, over the allowed {_MOST_BYTES / 2**30:g}; make the image smaller"
        )
    beliefs = dense_crf(photo_logits(logits, stride, size), image, crf, threads)
    labels = beliefs.argmax(0).astype(np.uint8 if len(logits) <= 256 else np.uint16)
    return labels, beliefs.max(0)


def crf_bytes(num_classes: int, size: tuple[int, int]) -> int:
    """About how much memory `crf_labels` takes: docs/crf.md has what was measured."""
    return size[0] * size[1] * (24 * num_classes + 500)


def dense_crf(
    logits: NDArray[np.float32],
    image: NDArray[np.uint8],
    crf: Crf,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the probabilities (K, H, W) of the classes after mean field inference.

    Args:
        logits: (K, H, W), neither NaN nor infinite; or logarithms of probabilities, since what
            all classes of a pixel have in common changes nothing.
        image: (H, W, C); of more than three channels the first three count.
        crf: the parameters.
        threads: how many to compute in; by default as many as this process may run on. They do
            not change the result.

    Raises:
        InputError: a standard deviation is too small, or a logit NaN or infinite.
        ValueError: the shapes do not go together.
    """
    kernels = _kernels(logits, image, crf)
    if not is_compiled():
        return dense_crf_reference(logits, image, crf)
    return mean_field(logits, kernels, crf.iterations, threads)


def dense_crf_reference(
    logits: NDArray[np.float32], image: NDArray[np.uint8], crf: Crf
) -> NDArray[np.float32]:
    """Do what the kernel does in the plainest way, in float64."""
    energies = logits.reshape(len(logits), -1).T.astype(np.float64)  # (N, K)
    filters = [(kernel.weight, _filter(kernel)) for kernel in _kernels(logits, image, crf)]
    beliefs = _softmax(energies)
    for _ in range(crf.iterations):
        beliefs = _softmax(energies + sum(weight * send(beliefs) for weight, send in filters))
    return np.asarray(beliefs.T.reshape(logits.shape), np.float32)


def _kernels(
    logits: NDArray[np.float32], image: NDArray[np.uint8], crf: Crf
) -> tuple[Kernel, Kernel]:
    """The appearance and the smoothness kernel of an image (H, W, C)."""
    image = shown(image)
    if logits.ndim != 3 or logits.size == 0 or image.shape != (*logits.shape[1:], 3):
        raise ValueError(f"logits {logits.shape} and image {image.shape} do not go together")
    if not logits.max() < np.inf:  # one such pixel would spread over the image
        raise InputError("dense CRF: the network gives NaN or infinite logits; take other weights")
    y, x = np.indices(image.shape[:2], np.float32).reshape(2, -1)  # (N,) each
    colors = image.reshape(-1, 3).T.astype(np.float32)  # (3, N)
    place, color = np.float32(crf.position), np.float32(crf.color)
    near = np.float32(crf.distance)
    appearance = _elevated(np.stack([x / place, y / place, *(colors / color)]))
    smoothness = _elevated(np.stack([x / near, y / near]))
    return Kernel(crf.appearance, appearance), Kernel(crf.smoothness, smoothness)


def _elevated(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (d, N) features so that the lattice's blur is that of a Gaussian of deviation 1.

    Raises:
        InputError: coordinates would not fit into a key, or be no longer exact in float32.
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


def _softmax(energies: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, K)
    powers = np.exp(energies - energies.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _filter(kernel: Kernel) -> Filter:
    """The normalised Gaussian filter of a kernel."""
    keys, shares = _simplices(kernel.features)
    points, corners = np.unique(keys, return_inverse=True)  # (M,), (d + 1, N)
    neighbors = _neighbors(points, len(kernel.features))
    gain = 1 + 2.0 ** -len(kernel.features)

    def blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, C) -> (N, C)
        lattice = np.zeros((len(points) + 1, values.shape[1]))  # the last row is of no point
        for corner, share in zip(corners, shares, strict=True):
            np.add.at(lattice, corner, share[:, None] * values)
        for after, before in neighbors:
            lattice[:-1] += (lattice[after] + lattice[before]) / 2
        whole = sum(
            share[:, None] * lattice[corner] for corner, share in zip(corners, shares, strict=True)
        )
        return np.asarray(whole / gain)

    scales = 1 / np.sqrt(blurred(np.ones((kernel.features.shape[1], 1))) + 1e-20)  # (N, 1)
    return lambda values: scales * blurred(scales * values)


def _simplices(
    features: NDArray[np.float32],  # (d, N)
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The corners around each pixel, as keys, and what it shares out to each; (d + 1, N) both.

    The d + 1 coordinates of a corner have the sum 0, and the same remainder by d + 1; the simplex
    has one corner of each remainder. (Adams et al. 2010, section 3.)
    """
    count = len(features) + 1
    place = np.empty((count, features.shape[1]), np.float32)
    total = np.zeros(features.shape[1], np.float32)
    for i in range(count - 1, 0, -1):  # onto the plane where the sum is 0
        place[i] = total - i * features[i - 1]
        total = total + features[i - 1]
    place[0] = total
    inverse = np.float32(1) / np.float32(count)
    multiples = np.rint(place * inverse)
    away = place - multiples * count
    order = np.argsort(-away, axis=0, kind="stable")  # the farthest first
    rank = np.argsort(order, axis=0) + multiples.sum(0).astype(np.int64)
    wrap = count * ((rank < 0).astype(np.int64) - (rank >= count))  # back onto the plane
    rank += wrap
    origin = multiples.astype(np.int64) * count + wrap  # the corner of remainder 0
    ranked = np.empty_like(place)
    np.put_along_axis(ranked, rank, (place - origin.astype(np.float32)) * inverse, axis=0)
    shares = np.diff(ranked[::-1], axis=0, prepend=ranked[:1] - 1)
    digits = _digits(count - 1)[:, None]
    keys = [((origin + k - count * (rank >= count - k)) * digits).sum(0) for k in range(count)]
    return np.stack(keys), shares


def _digits(count: int) -> NDArray[np.int64]:
    """What each of d + 1 coordinates counts in a key; the last one follows from the others."""
    return np.append(np.int64(1) << (np.arange(count) * (60 // count)), 0)


def _neighbors(points: NDArray[np.int64], count: int) -> list[NDArray[np.intp]]:
    """The points after and before each, (2, M), along each axis; M where there is none.

    A step along an axis is -1 in all coordinates, but for d in its own.
    """
    digits = _digits(count)
    found = []
    for step in (count + 1) * digits - digits.sum():
        wanted = np.stack([points + step, points - step])
        places = np.searchsorted(points, wanted).clip(max=len(points) - 1)
        found.append(np.where(points[places] == wanted, places, len(points)))
    return found
