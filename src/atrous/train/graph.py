"""A training step as a CUDA graph: what would be a thousand launches is one.

A graph holds kernels and addresses, and nothing of what Python does. So the step takes its batches
from tensors that stay where they are, learning rates are tensors, and nothing in it waits for the
device. Random numbers need no care: a replay takes seed and offset of torch's generator as they are
at that moment, and draws what the same calls would draw without a graph.
"""

import gc
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from atrous.progress import Notify

WARM_UP = 3
"""Steps before the capture. torch asks for some: libraries allocate and choose in the first."""


class CudaGraph:
    """The capture of a function of no arguments, and its replay."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.graph = torch.cuda.CUDAGraph()

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Call `function`, on the stream of the capture: torch binds much to the first stream."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = function()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def capture(self, function: Callable[[], Tensor]) -> None:
        """Record the kernels of `function` without running them."""
        gc.collect()  # what dies during a capture would disturb it
        # "thread_local": other threads pin batches and write checkpoints meanwhile
        recording = torch.cuda.graph(
            self.graph, stream=self.stream, capture_error_mode="thread_local"
        )
        # the outer context puts the stream back where the inner one fails to
        with torch.cuda.stream(self.stream), recording:  # which empties torch's cache of memory
            self.result = function()

    def replay(self) -> Tensor:
        """Run the recorded kernels; return the captured result, which each replay overwrites."""
        self.graph.replay()
        return self.result

    def drop(self) -> None:
        """Clean up after a capture that failed."""
        del self.graph
        # some versions of torch leave the generator as if the capture went on: give it a new state,
        # with the seed of the step, which is taken without a graph now
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
        generator.graphsafe_set_state(fresh)


class GraphedStep:
    """A function of tensors that is called a few times, then captured and replayed."""

    def __init__(
        self,
        step: Callable[[Sequence[Tensor]], Tensor],
        graph: CudaGraph,
        device: torch.device,
        notify: Notify,
    ) -> None:
        """Take the function.

        Args:
            step: takes tensors, always of the same shapes, changes others in place, returns one.
            graph: not yet captured.
            device: of the tensors.
            notify: called if the step cannot be captured; each call then runs it as it is.
        """
        self.step, self.graph, self.device, self.notify = step, graph, device, notify
        self.inputs: list[Tensor] = []
        self.calls, self.captured = 0, False

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the result of the step, a tensor of its own."""
        if not self.inputs:
            self.inputs = [torch.empty_like(part, device=self.device) for part in inputs]
        for kept, part in zip(self.inputs, inputs, strict=True):
            kept.copy_(part, non_blocking=True)
        if self.calls == WARM_UP:
            self._capture()
        self.calls += 1
        if self.captured:
            return self.graph.replay().clone()
        return self.graph.run(self._step)

    def _step(self) -> Tensor:
        return self.step(self.inputs)

    def _capture(self) -> None:
        try:
            self.graph.capture(self._step)
            self.captured = True
        except RuntimeError as error:  # no weight has changed: a capture runs nothing
            self.graph.drop()
            reason = str(error.__context__ or error).partition("\n")[0]  # the end fails, too
            self.notify(f"no CUDA graph of the step ({reason}); each step is launched, slower")


class Lead:
    """Lets the host be a few steps ahead of the device, which is never idle then.

    Without an end to it, pinned batches would pile up, and times of steps would be those of the
    host.
    """

    STEPS = 4

    def __init__(self) -> None:
        self.events: deque[torch.cuda.Event] = deque()

    def step_taken(self) -> None:
        """Wait until the device has done all but the latest steps."""
        # "blocking" sleeps: a core that spins is one worker less
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self.events.append(event)
        if len(self.events) > self.STEPS:
            self.events.popleft().synchronize()
