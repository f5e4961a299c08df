"""A network in torch between NumPy arrays: logits or labels of images, computed on its device.

On CUDA each function of each shape of images becomes a CUDA graph, since launching the kernels of a
small network takes longer than running them.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atrous.infer.runtimes.base import Labelled, label_logits
from atrous.infer.tiling import WHOLE_PIXELS
from atrous.kernels.triton import is_usable

if TYPE_CHECKING:
    from torch import Tensor, device

    Function = Callable[[Tensor], Sequence[Tensor]]
    """Images, uint8 (B, H, W, C), to contiguous results, all on the device."""
    Capture = Callable[[Function, Tensor], tuple[Callable[[], None], Sequence[Tensor]]]
    """A function and its static input to what computes it anew, and its static results."""

_BATCH = 16
"""Most images at a time on a GPU; and no more pixels than in the largest image without tiles."""

_MAX_GRAPHS, _MAX_SEEN = 16, 64

_CUDA = Lock()
"""Held by each call on CUDA: graphs share memory, and are captured while no other thread works."""


class TorchNetwork:
    """A network on its device."""

    def __init__(
        self,
        forward: "Callable[[Tensor], Tensor]",
        stride: int,
        device: "device",
        *,
        aligned: bool = False,
        autocast: bool = False,
        graphs: bool = False,
    ):
        """Take a network that is on its device.

        Args:
            forward: uint8 (B, H, W, C) to logits, float32 (B, K, h, w).
            stride: of the logits.
            device: where images are moved to.
            aligned: their cells lie on pixels (docs/conventions.md).
            autocast: compute in bfloat16 by autocast.
            graphs: capture CUDA graphs.
        """
        self._forward, self._stride, self._device = forward, stride, device
        self._aligned = aligned
        self._autocast = autocast
        self._on_cuda = device.type == "cuda"
        self._labels_here = is_usable(device.type)
        self._graphs = Graphs(device, cuda_capture(device)) if graphs else None
        self._most = _BATCH if self._on_cuda else 1

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, h, w)."""
        (logits,) = self._run(self._logits, images)
        return logits

    def label(
        self,
        images: NDArray[np.uint8],
        threads: int | None = None,
        *,
        with_confidence: bool = False,
    ) -> Labelled:
        """Return the labels of images; on the device where Triton's kernels run there.

        A batch that does not fit into the device's memory is labelled in halves, and later ones are
        as small.
        """
        import torch

        try:
            return self._label(images, threads, with_confidence=with_confidence)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        self._most = len(images) // 2
        halves = [
            self.label(half, threads, with_confidence=with_confidence)
            for half in (images[: self._most], images[self._most :])
        ]
        labels = np.concatenate([labels for labels, _ in halves])
        sure = [confidence for _, confidence in halves if confidence is not None]
        return labels, np.concatenate(sure) if sure else None

    def batch_size(self, size: tuple[int, int]) -> int:
        """Return how many images of `size` (H, W) to take at a time."""
        return max(1, min(self._most, WHOLE_PIXELS // (size[0] * size[1])))

    def _label(
        self, images: NDArray[np.uint8], threads: int | None, *, with_confidence: bool
    ) -> Labelled:
        if not self._labels_here:
            logits = self.logits(images)
            return label_logits(
                logits,
                self._stride,
                images,
                threads,
                aligned=self._aligned,
                with_confidence=with_confidence,
            )
        function = self._labels_confidence if with_confidence else self._labels
        labels, *confidence = self._run(function, images)
        if labels.dtype != np.uint8:
            labels = labels.astype(np.uint16)
        return labels, confidence[0] if with_confidence else None

    def _logits(self, images: "Tensor") -> "Sequence[Tensor]":
        return (self._forward(images).contiguous(),)

    def _labels(self, images: "Tensor") -> "Sequence[Tensor]":
        from atrous.kernels.triton.upsample import gpu_labels

        size = images.shape[1], images.shape[2]
        return (gpu_labels(self._forward(images), self._stride, size, aligned=self._aligned),)

    def _labels_confidence(self, images: "Tensor") -> "Sequence[Tensor]":
        from atrous.kernels.triton.upsample import gpu_labels_confidence

        size = images.shape[1], images.shape[2]
        logits = self._forward(images)
        return gpu_labels_confidence(logits, self._stride, size, aligned=self._aligned)

    def _run(self, function: "Function", images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        import torch

        with ExitStack() as contexts:
            contexts.enter_context(torch.inference_mode())
            if self._on_cuda:
                contexts.enter_context(_CUDA)
                # Triton starts its kernels on the current device, which is each thread's own.
                contexts.enter_context(torch.cuda.device(self._device))
            if self._autocast:
                contexts.enter_context(torch.autocast(self._device.type, torch.bfloat16))
            if self._graphs is not None:
                return self._graphs(function, images)
            return _eager(function, images, self._device)


class Graphs:
    """CUDA graphs of functions of one batch of images, one for each function and shape.

    The first call with a shape runs eagerly, since many shapes come once; the second one captures a
    graph, which later ones replay. Of many shapes the one that was not used for longest is dropped.
    """

    def __init__(self, device: "device", capture: "Capture"):
        """Use `capture`, which is `cuda_capture` but in tests."""
        self._device, self._capture = device, capture
        self._graphs: dict[Any, _Graph] = {}  # the one that was used last stands last
        self._seen: dict[Any, None] = {}  # functions and shapes of the latest eager calls
        self._works = True

    def __call__(self, function: "Function", images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Return the results of `function`; one thread at a time, in inference mode."""
        key = function, images.shape
        graph = self._graphs.pop(key, None)
        if graph is None and key in self._seen and self._works:
            graph = self._captured(function, images.shape)
        if graph is None:
            _put(self._seen, key, None, _MAX_SEEN)
            return _eager(function, images, self._device)
        _put(self._graphs, key, graph, _MAX_GRAPHS)
        return graph(images)

    def _captured(self, function: "Function", shape: tuple[int, ...]) -> "_Graph | None":
        try:
            return _Graph(function, shape, self._device, self._capture)
        except RuntimeError as error:  # what torch raises, also for lack of memory
            self._works = False
            self._graphs.clear()  # torch may not replay them any more
            # The end of a capture fails, too: the reason is the error before it.
            reason = str(error.__context__ or error).strip().partition("\n")[0]
            warnings.warn(f"no CUDA graph ({reason}): the network runs more slowly", stacklevel=2)
            return None


def _put(latest: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Make `key` the last one of `latest`; drop the first if there are over `most`."""
    latest.pop(key, None)
    latest[key] = value
    if len(latest) > most:
        del latest[next(iter(latest))]


class _Graph:
    """A graph with its static images and results, and the memory to copy these to and from."""

    def __init__(
        self, function: "Function", shape: tuple[int, ...], device: "device", capture: "Capture"
    ):
        import torch

        pin = device.type == "cuda"  # pinned memory is copied without waiting
        self._device = device
        self._upload = torch.zeros(shape, dtype=torch.uint8, pin_memory=pin)
        self._images = self._upload.to(device, copy=True)
        self._replay, self._results = capture(function, self._images)
        self._downloads = [
            torch.empty(result.shape, dtype=result.dtype, pin_memory=pin)
            for result in self._results
        ]

    def __call__(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        import torch

        self._upload.numpy()[:] = images
        self._images.copy_(self._upload, non_blocking=True)
        self._replay()
        for download, result in zip(self._downloads, self._results, strict=True):
            download.copy_(result, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return [download.numpy().copy() for download in self._downloads]


def cuda_capture(device: "device") -> "Capture":
    """Return what captures CUDA graphs that share one pool of memory.

    They may: one runs at a time, and its results, which stay allocated, are copied before the next.
    """
    import torch

    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(
        function: "Function", images: "Tensor"
    ) -> "tuple[Callable[[], None], Sequence[Tensor]]":
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # libraries choose and allocate before the capture
            for _ in range(2):
                function(images)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        )
        with (
            # the generator's tensors, made here, also serve a training, whose mode is another
            torch.inference_mode(False),
            # puts the stream back where the end of a recording fails
            torch.cuda.stream(stream),
            recording,
            torch.inference_mode(),
        ):
            results = function(images)
        return graph.replay, results

    return capture


def _eager(function: "Function", images: NDArray[np.uint8], device: "device") -> list[NDArray[Any]]:
    import torch

    results = function(torch.tensor(images).to(device))
    return [result.cpu().numpy() for result in results]
