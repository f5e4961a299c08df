"""Networks in torch as they run on a GPU: graphs by a double, labels in Triton's interpreter."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from networks import build
from torch import Tensor, nn
from triton_tools import run_with_triton

from atrous.infer.runtimes import torch_network
from atrous.infer.runtimes.torch_network import Graphs, TorchNetwork, cuda_capture
from atrous.models.bf16 import Bf16
from atrous.models.catalogue import BACKBONES, MODELS
from atrous.models.photo import PhotoNetwork

CPU = torch.device("cpu")


class Double:
    """Captures as CUDA does: a replay computes on the static input, into the static results."""

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(
        self, function: Callable[[Tensor], Sequence[Tensor]], images: Tensor
    ) -> tuple[Callable[[], None], Sequence[Tensor]]:
        self.captured.append(tuple(images.shape))
        results = function(images)

        def replay() -> None:
            self.replays += 1
            for result, value in zip(results, function(images), strict=True):
                result.copy_(value)

        return replay, results


def darkness(images: Tensor) -> Sequence[Tensor]:
    return images.sum(3, dtype=torch.int32), 255 - images[..., 0]


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_exact(graphs: Graphs, images: np.ndarray) -> None:
    with torch.inference_mode():
        found = graphs(darkness, images)
    for result, expected in zip(found, darkness(torch.tensor(images)), strict=True):
        assert np.array_equal(result, expected.numpy())


def test_the_second_call_of_a_shape_is_captured_and_later_ones_are_replayed() -> None:
    double = Double()
    graphs = Graphs(CPU, double)
    for number in range(5):
        for shape in ((1, 4, 6, 3), (2, 4, 6, 3)):
            assert_exact(graphs, random_images(*shape, seed=number))
        assert len(double.captured) == (0 if number == 0 else 2)
        assert double.replays == 2 * number


def test_results_are_the_callers() -> None:
    graphs = Graphs(CPU, Double())
    images = random_images(1, 4, 6, 3)
    with torch.inference_mode():
        first, again = [graphs(darkness, images)[0] for _ in range(3)][1:]
        before = first.copy()
        graphs(darkness, 255 - images)
    assert np.array_equal(first, before) and np.array_equal(again, before)


def test_functions_have_their_own_graphs() -> None:
    double = Double()
    graphs, images = Graphs(CPU, double), random_images(1, 4, 6, 3)
    with torch.inference_mode():
        for _ in range(2):
            assert len(graphs(darkness, images)) == 2
            assert len(graphs(lambda_of_one, images)) == 1
    assert len(double.captured) == 2


def lambda_of_one(images: Tensor) -> Sequence[Tensor]:
    return (images + 1,)


def test_the_shape_that_was_not_used_for_longest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_network, "_MAX_GRAPHS", 2)
    double = Double()
    graphs = Graphs(CPU, double)
    for width in (1, 1, 2, 2, 1, 3, 3):  # 2 is dropped
        assert_exact(graphs, random_images(1, 1, width, 3))
    assert [shape[2] for shape in double.captured] == [1, 2, 3]
    for width in (1, 2, 2):
        assert_exact(graphs, random_images(1, 1, width, 3))
    assert [shape[2] for shape in double.captured] == [1, 2, 3, 2]


def test_a_capture_that_fails_is_said_once() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    graphs = Graphs(CPU, fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for width in (1, 2):
            for number in range(4):
                assert_exact(graphs, random_images(1, 1, width, 3, seed=number))
    [message] = [str(warning.message) for warning in caught]
    assert "\n" not in message
    assert message.startswith("no CUDA graph (operation not permitted): ")


def test_after_a_capture_that_fails_no_graph_is_replayed() -> None:
    double = Double()

    def fail_the_second(*arguments: Any) -> Any:
        if double.captured:
            raise RuntimeError("operation not permitted")
        return double(*arguments)

    graphs = Graphs(CPU, fail_the_second)
    with pytest.warns(UserWarning, match="no CUDA graph"):
        for width in (1, 1, 2, 2):
            assert_exact(graphs, random_images(1, 1, width, 3))
    assert double.replays == 1
    assert_exact(graphs, random_images(1, 1, 1, 3))
    assert double.replays == 1


def test_a_recording_begins_and_ends_outside_of_inference_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else torch's tensors for seeds, which graphs share, could not be changed by a training."""
    modes: list[bool] = []

    @contextmanager
    def recording(*_: object, **__: object) -> Iterator[None]:
        modes.append(torch.is_inference_mode_enabled())
        yield
        modes.append(torch.is_inference_mode_enabled())

    def function(images: Tensor) -> Sequence[Tensor]:
        modes.append(torch.is_inference_mode_enabled())
        return (images + 1,)

    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    for name in ("Stream", "CUDAGraph", "current_stream", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    with torch.inference_mode():
        cuda_capture(CPU)(function, torch.ones(1))
    assert modes == [True, True, False, True, False]  # twice to warm up, then recorded


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
def test_a_training_can_be_captured_after_a_photo() -> None:
    from atrous.train.graph import CudaGraph

    device = torch.device("cuda")
    graphs = Graphs(device, cuda_capture(device))
    images = random_images(1, 4, 6, 3)
    with torch.inference_mode():
        for _ in range(3):
            found = graphs(darkness, images)
    assert np.array_equal(found[1], 255 - images[..., 0])
    graph = CudaGraph()
    for _ in range(2):
        graph.run(lambda: torch.rand(5, device=device))
    graph.capture(lambda: torch.rand(5, device=device))
    drawn = []
    for replayed in (True, False):
        torch.manual_seed(7)
        drawn.append(graph.replay().clone() if replayed else torch.rand(5, device=device))
    assert torch.equal(*drawn)


class Shades(nn.Module):
    """Logits of five classes at stride 4, of an image's blocks."""

    def forward(self, images: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 4, ceil_mode=True)
        return torch.cat([cells, 255 - cells[:, :2]], 1)


def test_threads_that_share_a_network_with_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double is as unsafe as CUDA: static images are overwritten by the next call."""
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    network = TorchNetwork(Shades(), 4, CPU)
    batches = [random_images(1, 8, 12 + i % 3, 3, seed=i) for i in range(60)]
    expected = [network.label(images) for images in batches]
    network._graphs, network._on_cuda = Graphs(CPU, Double()), True  # so that it locks
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(network.label, batches))
    for (labels, _), (wanted, _) in zip(found, expected, strict=True):
        assert np.array_equal(labels, wanted)


@pytest.mark.parametrize("with_confidence", [False, True])
def test_a_batch_too_large_for_the_memory_is_labelled_in_halves(with_confidence: bool) -> None:
    shades, sizes = Shades(), []

    def forward(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return shades(images)

    network = TorchNetwork(forward, 4, CPU)
    network._most = 16
    images = random_images(16, 8, 12, 3)
    labels, confidence = network.label(images, with_confidence=with_confidence)
    wanted, sure = TorchNetwork(shades, 4, CPU).label(images, with_confidence=with_confidence)
    assert np.array_equal(labels, wanted)
    assert (confidence is not None) == with_confidence
    if with_confidence:
        assert np.array_equal(confidence, sure)
    assert network.batch_size((8, 12)) == 2
    assert sizes[:4] == [16, 8, 4, 2]


def test_an_image_too_large_for_the_memory_is_an_error() -> None:
    def forward(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        TorchNetwork(forward, 4, CPU).label(random_images(2, 8, 12, 3))


def test_a_batch_has_at_most_the_pixels_of_the_largest_whole_image() -> None:
    network = TorchNetwork(Shades(), 4, CPU)
    assert network.batch_size((1, 1)) == 1
    network._most = 16
    sizes = {(1, 1): 16, (360, 480): 16, (512, 512): 16, (1024, 2048): 2, (4000, 4000): 1}
    assert {size: network.batch_size(size) for size in sizes} == sizes


def compare_in_triton(folder: str) -> None:
    """Check the labels of a run folder, computed by Triton, against those of its logits."""
    from atrous.infer.runtimes.base import label_logits
    from atrous.infer.runtimes.open import open_runtime
    from atrous.kernels.triton import is_usable

    assert is_usable("cpu")
    runtime = open_runtime(Path(folder), 1, "torch")
    images = random_images(2, 7, 18, 3)
    labels, confidence = runtime.label(images, with_confidence=True)
    logits = runtime(images)
    wanted, sure = label_logits(logits, runtime.metadata.stride, images, with_confidence=True)
    assert labels.shape == (2, 7, 18) and (labels == wanted).mean() > 0.99
    assert np.abs(confidence - sure).max() < 2e-6
    again, none = runtime.label(images)
    assert none is None and np.array_equal(again, labels)


@pytest.mark.slow
def test_a_run_folder_is_labelled_by_triton(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")
    code = "import sys; sys.path.insert(0, 'tests/infer'); from pathlib import Path\n"
    code += (
        "from test_runtimes import write_run; from test_torch_network import compare_in_triton\n"
    )
    code += f"write_run(Path({str(tmp_path)!r})); compare_in_triton({str(tmp_path)!r})"
    run_with_triton(code, Path(__file__).parent)


PAIRS = [
    *((model, "resnet18" if entry.has_backbone else "none") for model, entry in MODELS.items()),
    *(
        ("deeplabv3plus", next(name for name in BACKBONES if BACKBONES[name] == family))
        for family in sorted(set(BACKBONES.values()) - {"resnet"})
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backbone"), PAIRS)
def test_weights_in_bf16_are_as_exact_as_autocast(model: str, backbone: str) -> None:
    torch.manual_seed(0)
    network = build(model, num_classes=5, backbone=backbone).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)  # heads of FCNs begin with zeros
    photo = PhotoNetwork(network, (0.5,) * 3, (0.25,) * 3).eval()
    images = torch.tensor(random_images(2, 65, 97, 3))
    with torch.inference_mode():
        exact = photo(images)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = photo(images)
        cast = Bf16(photo)(images)
    assert cast.dtype == torch.float32

    def error(logits: Tensor) -> float:
        return float((logits - exact).square().mean().sqrt() / exact.std())

    assert error(cast) < max(1.5 * error(autocast), 0.01)
    assert all(  # batch norms keep their precision
        tensor.dtype != torch.bfloat16
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        for tensor in (module.weight, module.running_var)
    )
