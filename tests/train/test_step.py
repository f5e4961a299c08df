"""The step of a GPU on a CPU, with a graph that calls what was captured; averages, checkpoints."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import SMALL, only_add, same, state_of
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.backends import cudnn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atrous.data.shapes import write_shapes
from atrous.models import convolution
from atrous.models.create import config_from_options, create_model
from atrous.train import Recipe, StepInfo, checkpoint, train
from atrous.train import training as taking_steps
from atrous.train.average import Average
from atrous.train.checkpoint import Writer
from atrous.train.determinism import algorithms
from atrous.train.graph import WARM_UP, CudaGraph, GraphedStep, Lead
from atrous.train.loss import upsampled
from atrous.train.optim import build_optimizer, load_optimizer, set_learning_rate

CPU = torch.device("cpu")
RECIPE = replace(
    SMALL, num_steps=8, validate_every=4, checkpoint_every=3, dropout=0.5, ema_decay=0.9
)


class Double:
    """Stands in for a `CudaGraph`: a capture keeps the function, a replay calls it."""

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        return function()

    def capture(self, function: Callable[[], Tensor]) -> None:
        self.function, self.result = function, torch.zeros(2)

    def replay(self) -> Tensor:
        return self.result.copy_(self.function())  # always in the same place

    def drop(self) -> None:
        pass


class Failing(Double):
    def capture(self, function: Callable[[], Tensor]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6, 2, size=(64, 96))


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a GPU on the CPU: fused optimiser, tensors as rates, casts, a graph."""
    monkeypatch.setattr(taking_steps, "is_capturable", lambda recipe, accelerator: True)
    monkeypatch.setattr(taking_steps, "CudaGraph", Double)


def assert_same_run(first: Path, second: Path) -> None:
    states = [state_of(run) for run in (first, second)]
    for part in ("network", "average"):
        assert same(states[0][part], states[1][part])
    logs = [
        [json.loads(line) | {"seconds_per_step": 0} for line in (run / "log.jsonl").open()]
        for run in (first, second)
    ]
    assert logs[0] == logs[1]


CHANGES = (
    {"precision": "bf16", "auxiliary_weight": 0.4, "auxiliary_levels": (16, 8)},
    {"optimizer": "sgd", "accumulation_steps": 2, "clip_norm": 1.0},
)


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("change", CHANGES)
def test_a_graph_changes_no_bit_nor_does_a_resume(
    shapes: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    assert_graph_and_resume_are_exact(replace(RECIPE, **change), shapes, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("views", [0, 2])
def test_a_teacher_is_part_of_the_graph(shapes: Path, tmp_path: Path, views: int) -> None:
    assert_teacher_is_part_of_the_graph(shapes, tmp_path, views)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
@pytest.mark.parametrize("views", [0, 2])
def test_so_it_is_on_a_gpu_with_a_teacher(shapes: Path, tmp_path: Path, views: int) -> None:
    assert_teacher_is_part_of_the_graph(shapes, tmp_path, views)


def assert_teacher_is_part_of_the_graph(shapes: Path, tmp_path: Path, views: int) -> None:
    teacher = str(tmp_path / "teacher")
    train(replace(RECIPE, num_steps=1), str(shapes), teacher)
    recipe = replace(
        RECIPE, teacher=(teacher,), teacher_views=views, teacher_flip=True,
        teacher_scales=(1.0, 0.75), precision="bf16", accumulation_steps=2,
    )  # fmt: skip
    assert_graph_and_resume_are_exact(recipe, shapes, tmp_path)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
@pytest.mark.parametrize("change", [*CHANGES, {"optimizer": "rmsprop", "separable": True}])
def test_so_it_is_on_a_gpu(shapes: Path, tmp_path: Path, change: dict[str, object]) -> None:
    assert_graph_and_resume_are_exact(replace(RECIPE, **change), shapes, tmp_path)


def assert_graph_and_resume_are_exact(recipe: Recipe, shapes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(recipe, str(shapes), tmp_path / "graph", notify=lines.append)
    assert not [line for line in lines if "graph" in line]  # it was captured
    train(replace(recipe, cuda_graph=False), str(shapes), tmp_path / "eager")
    assert_same_run(tmp_path / "graph", tmp_path / "eager")

    def stop(info: StepInfo) -> None:
        if info.step == 7:  # replayed after the checkpoint at 6
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, str(shapes), tmp_path / "cut", on_step=stop)
    assert state_of(tmp_path / "cut")["step"] == 6
    train(recipe, str(shapes), tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "graph", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_gpu")
def test_a_step_that_cannot_be_captured_goes_on(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_steps, "CudaGraph", Failing)
    lines: list[str] = []
    recipe = replace(RECIPE, num_steps=5)
    train(recipe, str(shapes), tmp_path / "failing", notify=lines.append)
    assert [line for line in lines if "graph" in line] == [
        "no CUDA graph of the step (operation not permitted when stream is capturing); "
        "each step is launched, slower"
    ]
    train(replace(recipe, cuda_graph=False), str(shapes), tmp_path / "eager")
    assert_same_run(tmp_path / "failing", tmp_path / "eager")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
def test_a_capture_that_fails_on_a_gpu_changes_no_random_number() -> None:
    waits, lines = False, []

    def step(inputs: list[Tensor]) -> Tensor:
        drawn = torch.rand(2, device="cuda") + inputs[0]
        if waits and torch.cuda.is_current_stream_capturing():
            drawn.cpu()  # which a capture forbids
        return drawn

    results = []
    for waits in (True, False):
        graphed = GraphedStep(step, CudaGraph(), torch.device("cuda"), lines.append)
        for seed in range(6):
            torch.manual_seed(seed)
            results.append(graphed([torch.tensor(float(seed))]))
        assert graphed.captured != waits
    assert len(lines) == 1
    assert torch.equal(torch.stack(results[:6]), torch.stack(results[6:]))


def test_a_graphed_step_reads_its_inputs_where_they_were_captured() -> None:
    places, calls = set(), []

    def step(inputs: list[Tensor]) -> Tensor:
        places.add(inputs[0].data_ptr())
        calls.append(inputs[0].item())
        return torch.stack([inputs[0], inputs[0]])

    graph = Double()
    graphed = GraphedStep(step, graph, CPU, lambda line: None)
    results = [graphed([torch.tensor(float(n))]) for n in range(6)]
    assert len(places) == 1 and calls == list(range(6))
    assert [result[0].item() for result in results] == calls  # each a tensor of its own
    assert hasattr(graph, "function") and graphed.calls == 6 > WARM_UP


def test_the_host_is_at_most_four_steps_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking

        def record(self) -> None:
            self.step = step

        def synchronize(self) -> None:
            done.append(self.step)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    lead = Lead()
    for step in range(1, 11):
        lead.step_taken()
        assert done == list(range(1, step - 3))


class OnMeta:
    """An accelerator of a device whose values nobody can read: what waits for one raises."""

    device, num_processes, process_index, scaler = torch.device("meta"), 1, 0, None

    def prepare(self, network: nn.Module, optimizer: object) -> tuple[nn.Module, object]:
        return network, optimizer

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterator[Tensor], norm: float) -> None:
        nn.utils.clip_grad_norm_(parameters, norm)


class OnDevice(TorchDispatchMode):
    """Refuses the host's tensors: their copies would be wrong in a graph, or stop its capture."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, Tensor) or value.device == OnMeta.device, operation
        return result


@pytest.fixture
def kernels_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of Triton's kernels, which do nothing."""
    jit = pytest.importorskip("triton.runtime.jit", reason="comes with torch for CUDA on Linux")
    monkeypatch.setattr(jit.KernelInterface, "__getitem__", lambda *_: lambda *_, **__: None)
    for module in (convolution, upsampled):
        monkeypatch.setattr(module, "is_usable", lambda device: device == "meta")
    monkeypatch.setattr(convolution, "_autocast", lambda x: x)  # has no device "meta"


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_gpu", "kernels_on_meta")
@pytest.mark.parametrize(
    ("optimizer", "imported"),
    [("sgd", False), ("adamw", False), ("rmsprop", False), ("sgd", True)],
)
def test_no_step_waits_for_the_device(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, imported: bool
) -> None:
    rates: list[Tensor] = []

    def fused(weights: list[Tensor], grads: list[Tensor], *_: Any, lr: Tensor, **__: Any) -> None:
        rates.append(lr)
        for weight, grad in zip(weights, grads, strict=True):  # CUDA refuses other layouts
            lengths = zip(weight.shape, weight.stride(), grad.stride(), strict=True)
            assert all(length == 1 or a == b for length, a, b in lengths)

    for name in ("_fused_sgd_", "_fused_adam_", "_fused_adamw_"):  # not made for this device
        monkeypatch.setattr(torch, name, fused)
    for module, name in (  # torch.optim hides its modules
        ("torch.optim.rmsprop", "_get_capturable_supported_devices"),
        ("torch.optim.optimizer", "_get_fused_kernels_supported_devices"),
    ):
        monkeypatch.setattr(sys.modules[module], name, lambda *_, **__: ["meta"])
    options: dict[str, Any] = {"separable": True, "auxiliary_weight": 0.4, "dice_weight": 0.5}
    options |= {"optimizer": optimizer, "precision": "bf16", "clip_norm": 1.0}
    recipe = replace(RECIPE, **options, accumulation_steps=2, cuda_graph=False)
    network = create_model(config_from_options(recipe.model_options(4)), 4)
    if imported:
        only_add(network)
    training = taking_steps.Training(recipe, 4, (0, 1, 2), OnMeta(), network, fresh=False)  # type: ignore[arg-type]
    image = torch.zeros(2, 64, 64, 3, dtype=torch.uint8, device="meta")
    for _ in range(WARM_UP):  # constants and the optimiser's tensors are made
        training.advance(repeat((image, image[..., 0])))
    with OnDevice():
        losses, _ = training.advance(repeat((image, image[..., 0])))
    assert losses.device.type == "meta"
    assert all(isinstance(rate, Tensor) and rate.device.type == "meta" for rate in rates)
    assert bool(rates) == (optimizer != "rmsprop")
    norms = [m for m in training.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.training is not imported for norm in norms)


def test_cudas_algorithms_are_chosen_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> tuple[bool, bool, bool, bool]:
        filled = torch.utils.deterministic.fill_uninitialized_memory
        exact = torch.are_deterministic_algorithms_enabled()
        return exact, cudnn.deterministic, cudnn.benchmark, filled

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = chosen()
    if not torch.cuda.is_available():
        with algorithms(deterministic=True):
            assert chosen() == before and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with algorithms(deterministic=True):
        assert chosen() == (True, True, False, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(KeyboardInterrupt), algorithms(deterministic=False):
        assert chosen() == (False, False, True, False)
        raise KeyboardInterrupt
    assert chosen() == before


def test_learning_rates_stay_in_their_tensors_and_old_states_load() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for optimizer in ("sgd", "adam", "adamw"):
        recipe = Recipe(optimizer=optimizer)
        old = build_optimizer(network, recipe)
        new = build_optimizer(network, recipe, capturable=True)
        for each in (old, new):
            set_learning_rate(each, 0.5)
            each.zero_grad()
            network(torch.ones(2, 3, 4, 4)).square().sum().backward()
            each.step()
        rates = [group["lr"] for group in new.param_groups]
        load_optimizer(new, old.state_dict())
        assert all(group["fused"] for group in new.param_groups)
        set_learning_rate(new, 0.25)
        kept = zip(rates, new.param_groups, strict=True)
        assert all(group["lr"] is rate and rate == 0.25 for rate, group in kept)
        load_optimizer(old, new.state_dict())
        set_learning_rate(old, 0.125)
        assert [group["lr"] for group in old.param_groups] == [0.125] * len(old.param_groups)


def test_an_average_is_timms_to_the_bit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    theirs, ours = ModelEmaV3(network, 0.98, use_warmup=True), Average(network, 0.98)
    for step in range(1, 400, 7):
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        network(torch.randn(2, 3, 5, 5))
        theirs.update(network, step)
        ours.update(step)
        assert same(ours.network.state_dict(), theirs.module.state_dict())
    without_counts = Average(nn.Conv2d(1, 1, 1), 0.5)
    without_counts.update(1)


def test_a_checkpoint_is_that_of_the_moment_and_written_beside_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, writes = threading.Event(), []

    def slowly(folder: Path, state: dict[str, object]) -> None:
        assert may_write.wait(10)
        writes.append(threading.current_thread())
        torch.save(state, folder / "last.pt")

    monkeypatch.setattr(checkpoint, "save_state", slowly)
    weight = torch.zeros(3)
    with Writer(tmp_path, CPU) as writer:
        writer.save({"step": 1, "network": {"weight": weight}})
        weight += 1  # the training goes on
        may_write.set()
    assert state_of(tmp_path)["network"]["weight"].tolist() == [0, 0, 0]
    assert writes[0] is not threading.current_thread()


def test_an_error_of_the_writer_is_raised_at_the_next_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, state: dict[str, object]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_state", full)
    with pytest.raises(OSError, match="No space left"), Writer(tmp_path, CPU) as writer:
        writer.save({"step": 1})
    with pytest.raises(OSError, match="No space left"), Writer(tmp_path, CPU) as writer:
        writer.save({"step": 1})
        writer.save({"step": 2})
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, CPU) as writer:  # which matters more
        writer.save({"step": 1})
        raise KeyboardInterrupt
