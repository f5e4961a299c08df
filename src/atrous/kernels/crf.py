"""Mean field inference on permutohedral lattices, compiled: what infer/crf.py says in NumPy.

In each iteration a thread takes a chunk of eight classes through one lattice, those of the
appearance kernel first, since they take longest; then parts of the pixels collect what they get.
"""

import ctypes
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import in_threads, kernel, usable_cores

_WIDE = 8
"""Classes in a chunk."""

_LANES = 16
"""Pixels whose simplices are found at a time."""

_PART = 1024
"""Pixels whose probabilities are updated at a time."""

Floats = NDArray[np.float32]


class Kernel(NamedTuple):
    """A Gaussian of deviation 1 between pixels."""

    weight: float
    features: Floats
    """(d, N), scaled for the lattice."""


class _Held(ctypes.Structure):
    """A structure that keeps the arrays it points to: an interrupted caller leaves threads."""

    def point(self, **arrays: NDArray[Any]) -> None:
        """Set fields to the addresses of arrays."""
        self.held = {**getattr(self, "held", {}), **arrays}
        for name, array in arrays.items():
            setattr(self, name, array.ctypes.data)


class _Lattice(_Held):
    """As `Lattice` in kernels/crf.c, which describes the fields."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("features", "keys", "table", "corners", "weights")),
        ("neighbors", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("dimensions", "pixels", "columns", "points")),
        ("table_shift", ctypes.c_int64),
        ("strength", ctypes.c_float),
    )


class _Job(_Held):
    """As `Job` in kernels/crf.c."""

    _fields_ = (
        *((name, ctypes.POINTER(_Lattice)) for name in ("appearance", "smoothness")),
        *((name, ctypes.c_void_p) for name in ("coarse", "fine", "logits", "beliefs")),
        *((name, ctypes.c_int64) for name in ("chunks", "rows")),
    )


def is_compiled() -> bool:
    """Whether there is a built library for this machine."""
    return kernel("crf_points") is not None


def mean_field(
    logits: Floats, kernels: tuple[Kernel, Kernel], iterations: int, threads: int | None
) -> Floats:
    """Return the probabilities (K, H, W) of `logits` (K, H, W) after so many iterations.

    Args:
        logits: (K, H, W), finite.
        kernels: of 5 and of 2 dimensions; coordinates within what a key holds.
        iterations: how many.
        threads: how many to compute in; by default as many as this process may run on.
    """
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
    job = _Job(*map(ctypes.pointer, lattices), chunks=len(energies), rows=energies.shape[1])
    job.point(logits=energies, beliefs=beliefs)
    parts = [(i, min(i + _PART, job.rows)) for i in range(0, job.rows, _PART)]

    def blur(chunk: tuple[_Lattice, Floats, Floats]) -> None:
        other = spare.pop()
        _call("crf_blur", *chunk, other)
        spare.append(other)

    def update(part: tuple[int, int]) -> None:
        _call("crf_update", job, *part)

    in_threads(update, parts, threads)
    job.point(coarse=blurred[0], fine=blurred[1])
    for _ in range(iterations):
        in_threads(blur, chunks, threads)
        in_threads(update, parts, threads)
    return _unchunked(beliefs, logits.shape)


def _chunks(logits: Floats) -> Floats:
    """(K, H, W) to (chunks of classes, pixels, _WIDE), the pixels even in number."""
    planes = logits.reshape(len(logits), -1)  # (K, N)
    pixels, starts = planes.shape[1], range(0, len(planes), _WIDE)
    chunks = np.full((len(starts), pixels + pixels % 2, _WIDE), -1e30, np.float32)
    for chunk, start in zip(chunks, starts, strict=True):
        some = planes[start : start + _WIDE].T
        chunk[:pixels, : some.shape[1]] = some
    return chunks


def _unchunked(chunks: Floats, shape: tuple[int, ...]) -> Floats:
    """The reverse of `_chunks`, to `shape`."""
    planes = np.empty((shape[0], shape[1] * shape[2]), np.float32)
    for chunk, start in zip(chunks, range(0, shape[0], _WIDE), strict=True):
        some = planes[start : start + _WIDE]
        some[:] = chunk.T[: len(some), : planes.shape[1]]
    return planes.reshape(shape)


def _lattices(kernels: tuple[Kernel, Kernel], threads: int) -> list[_Lattice]:
    """The lattices of an image, their weights normalised."""
    lattices = [_allocated(each.features) for each in kernels]
    in_threads(_find_points, lattices, threads)
    axes = [(lattice, i) for lattice in lattices for i in range(lattice.dimensions + 1)]
    in_threads(lambda axis: _call("crf_neighbors", *axis), axes, threads)
    in_threads(_normalize, lattices, threads)
    for lattice, each in zip(lattices, kernels, strict=True):
        lattice.strength *= each.weight
    return lattices


def _allocated(features: Floats) -> _Lattice:
    """A lattice without its points, of which there are d + 1 for each pixel at most."""
    dimensions, pixels = features.shape
    entries = pixels * (dimensions + 1)
    table_bits = (entries * 3 // 2).bit_length()
    lattice = _Lattice(dimensions=dimensions, pixels=pixels, table_shift=64 - table_bits)
    lattice.strength = 1 / (1 + 2.0**-dimensions)
    lattice.columns = pixels + -pixels % _LANES
    lattice.point(
        features=np.pad(features, ((0, 0), (0, -pixels % _LANES))),
        keys=np.empty(entries + 1, np.uint64),
        table=np.zeros(1 << table_bits, np.int32),
        corners=np.empty(entries, np.int32),
        weights=np.empty(entries, np.float32),
    )
    return lattice


def _find_points(lattice: _Lattice) -> None:
    _call("crf_points", lattice)
    corners, rows = lattice.dimensions + 1, lattice.points + 1
    lattice.point(neighbors=np.zeros((corners, rows, 2), np.int32))


def _normalize(lattice: _Lattice) -> None:
    ones = np.ones((lattice.pixels, _WIDE), np.float32)
    blurred, other = np.empty((2, lattice.points + 1, _WIDE), np.float32)
    _call("crf_blur", lattice, ones, blurred, other)
    _call("crf_normalize", lattice, blurred)


def _call(name: str, structure: _Held, *arguments: int | Floats) -> None:
    function = kernel(name)
    assert function is not None
    function(
        ctypes.byref(structure),
        *(
            ctypes.c_int64(each) if isinstance(each, int) else ctypes.c_void_p(each.ctypes.data)
            for each in arguments
        ),
    )
