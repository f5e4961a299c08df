"""Mean field inference of a dense CRF on permutohedral lattices: crf.c and its NumPy reference.

A lattice filters by a Gaussian of deviation 1 (Adams et al. 2010): features of d dimensions lie in
a plane of d + 1 coordinates, which simplices fill; the values of a pixel are shared out among the
corners of its simplex, blurred along each axis, and collected again. Filters are normalised
symmetrically, as in the second version of Kraehenbuehl's and Koltun's code and in pydensecrf2.

In each iteration a thread takes a chunk of eight classes through one lattice, the appearance
kernel's first, which take longest; then each part of the pixels collects its values.
"""

import ctypes
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import Struct, call, fields, in_threads, is_available, usable_cores

_WIDE = 8
"""Classes in a chunk."""

_LANES = 16
"""Pixels whose simplices are found at a time."""

_PART = 1024
"""Pixels whose probabilities are updated at a time."""

Floats = NDArray[np.float32]
Filter = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values (N, K) of all pixels to what each receives from the others."""


class Kernel(NamedTuple):
    """A Gaussian of deviation 1 between pixels."""

    weight: float
    features: Floats
    """(d, N), scaled for the lattice."""


def mean_field(
    logits: Floats, kernels: tuple[Kernel, Kernel], iterations: int, threads: int | None = None
) -> Floats:
    """Return the probabilities (K, H, W) of `logits` (K, H, W) after mean field `iterations`.

    Args:
        logits: (K, H, W), finite.
        kernels: of 5 and of 2 dimensions; coordinates within the range of a key.
        iterations: 0 gives the softmax of `logits`.
        threads: by default as many as this process may run on; they do not change the result.
    """
    if not is_available("crf_points"):
        return mean_field_reference(logits, kernels, iterations)
    threads = threads or usable_cores()
    lattices = _lattices(kernels, threads)
    energies = _chunks(logits)
    beliefs = np.empty_like(energies)  # (chunks, rows, _WIDE)
    blurred = [np.empty((len(energies), x.points + 1, _WIDE), np.float32) for x in lattices]
    spare = deque(np.empty_like(max(blurred, key=np.size)[0]) for _ in range(threads))
    chunks = [
        (lattice, values, result)
        for lattice, results in zip(lattices, blurred, strict=True)
        for values, result in zip(beliefs, results, strict=True)
    ]
    pixels = energies.shape[1]
    job = _Job(*map(ctypes.pointer, lattices), chunks=len(energies), rows=pixels)
    job.logits, job.beliefs = energies, beliefs
    parts = [(i, min(i + _PART, pixels)) for i in range(0, pixels, _PART)]

    def blur(chunk: tuple[_Lattice, Floats, Floats]) -> None:
        other = spare.pop()
        call("crf_blur", *chunk, other)
        spare.append(other)

    def update(part: tuple[int, int]) -> None:
        call("crf_update", job, *part)

    in_threads(update, parts, threads)
    job.coarse, job.fine = blurred
    for _ in range(iterations):
        in_threads(blur, chunks, threads)
        in_threads(update, parts, threads)
    return _unchunked(beliefs, logits.shape)


def mean_field_reference(logits: Floats, kernels: tuple[Kernel, Kernel], iterations: int) -> Floats:
    """Do what `mean_field` does, in float64."""
    energies = logits.reshape(len(logits), -1).T.astype(np.float64)  # (N, K)
    filters = [(kernel.weight, lattice_filter(kernel.features)) for kernel in kernels]
    beliefs = _softmax(energies)
    for _ in range(iterations):
        beliefs = _softmax(energies + sum(weight * send(beliefs) for weight, send in filters))
    return np.asarray(beliefs.T.reshape(logits.shape), np.float32)


class _Lattice(Struct):
    """`Lattice` of crf.c, which describes the fields."""

    _fields_ = (
        *fields(ctypes.c_void_p, "features keys table corners weights neighbors"),
        *fields(ctypes.c_int64, "dimensions pixels columns points table_shift"),
        ("strength", ctypes.c_float),
    )


class _Job(Struct):
    """`Job` of crf.c."""

    _fields_ = (
        *fields(ctypes.POINTER(_Lattice), "appearance smoothness"),
        *fields(ctypes.c_void_p, "coarse fine logits beliefs"),
        *fields(ctypes.c_int64, "chunks rows"),
    )


def _chunks(logits: Floats) -> Floats:
    """Return (K, H, W) as (chunks of classes, pixels, _WIDE), with an even number of pixels."""
    planes = logits.reshape(len(logits), -1)  # (K, N)
    beyond = (0, -len(planes) % _WIDE), (0, planes.shape[1] % 2)
    planes = np.pad(planes, beyond, constant_values=-1e30)
    chunks = planes.reshape(-1, _WIDE, planes.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(chunks)


def _unchunked(chunks: Floats, shape: tuple[int, ...]) -> Floats:
    """Reverse `_chunks`, to `shape`."""
    pixels = shape[1] * shape[2]
    planes = chunks.transpose(0, 2, 1)[..., :pixels].reshape(-1, pixels)  # the only copy
    return planes[: shape[0]].reshape(shape)


def _lattices(kernels: tuple[Kernel, Kernel], threads: int) -> list[_Lattice]:
    """Return the lattices of an image, their weights normalised."""
    lattices = [_allocated(each.features) for each in kernels]
    in_threads(_find_points, lattices, threads)
    axes = [(lattice, i) for lattice in lattices for i in range(lattice.dimensions + 1)]
    in_threads(lambda axis: call("crf_neighbors", *axis), axes, threads)
    in_threads(_normalize, lattices, threads)
    for lattice, each in zip(lattices, kernels, strict=True):
        lattice.strength *= each.weight
    return lattices


def _allocated(features: Floats) -> _Lattice:
    """Return a lattice without its points, of which there are at most d + 1 for each pixel."""
    dimensions, pixels = features.shape
    entries = pixels * (dimensions + 1)
    table_bits = (entries * 3 // 2).bit_length()
    return _Lattice(
        features=np.pad(features, ((0, 0), (0, -pixels % _LANES))),
        keys=np.empty(entries + 1, np.uint64),
        table=np.zeros(1 << table_bits, np.int32),
        corners=np.empty(entries, np.int32),
        weights=np.empty(entries, np.float32),
        dimensions=dimensions,
        pixels=pixels,
        columns=pixels + -pixels % _LANES,
        table_shift=64 - table_bits,
        strength=1 / (1 + 2.0**-dimensions),
    )


def _find_points(lattice: _Lattice) -> None:
    call("crf_points", lattice)
    corners, rows = lattice.dimensions + 1, lattice.points + 1
    lattice.neighbors = np.zeros((corners, rows, 2), np.int32)


def _normalize(lattice: _Lattice) -> None:
    ones = np.ones((lattice.pixels, _WIDE), np.float32)
    blurred, other = np.empty((2, lattice.points + 1, _WIDE), np.float32)
    call("crf_blur", lattice, ones, blurred, other)
    call("crf_normalize", lattice, blurred)


def _softmax(energies: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, K)
    powers = np.exp(energies - energies.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def lattice_filter(features: Floats) -> Filter:
    """Return the normalised Gaussian filter between pixels of `features` (d, N)."""
    keys, shares = _simplices(features)
    points, corners = np.unique(keys, return_inverse=True)  # (M,), (d + 1, N)
    neighbors = _neighbors(points, len(features))
    gain = 1 + 2.0 ** -len(features)

    def blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, C) -> (N, C)
        lattice = np.zeros((len(points) + 1, values.shape[1]))  # the last row belongs to no point
        for corner, share in zip(corners, shares, strict=True):
            np.add.at(lattice, corner, share[:, None] * values)
        for after, before in neighbors:
            lattice[:-1] += (lattice[after] + lattice[before]) / 2
        whole = sum(
            share[:, None] * lattice[corner] for corner, share in zip(corners, shares, strict=True)
        )
        return np.asarray(whole / gain)

    scales = 1 / np.sqrt(blurred(np.ones((features.shape[1], 1))) + 1e-20)  # (N, 1)
    return lambda values: scales * blurred(scales * values)


def _simplices(
    features: NDArray[np.float32],  # (d, N)
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the corners around each pixel, as keys, and its shares in them; (d + 1, N) both.

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
    """Return the factor of each of d + 1 coordinates in a key; the last follows from the others."""
    return np.append(np.int64(1) << (np.arange(count) * (60 // count)), 0)


def _neighbors(points: NDArray[np.int64], count: int) -> list[NDArray[np.intp]]:
    """Return the points after and before each, (2, M), along each axis; M where there is none.

    A step along an axis is -1 in all coordinates, but for d in its own.
    """
    digits = _digits(count)
    found = []
    for step in (count + 1) * digits - digits.sum():
        wanted = np.stack([points + step, points - step])
        places = np.searchsorted(points, wanted).clip(max=len(points) - 1)
        found.append(np.where(points[places] == wanted, places, len(points)))
    return found
