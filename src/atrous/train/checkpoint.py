"""last.pt: the state of a training, for a resume.

All random draws depend only on the seed and the step, so the state has weights, optimiser, average
and step, but no random state. The file is replaced whole: a killed process leaves the previous one.
"""

import io
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from atrous.errors import InputError
from atrous.files import replacing

NAME = "last.pt"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write last.pt."""
    content = io.BytesIO()  # torch.save raises no OSError on a full disk; writing bytes does
    torch.save(dict(state), content)
    with replacing(folder / NAME) as temporary:
        temporary.write_bytes(content.getbuffer())


class Writer:
    """Writes last.pt in a thread, one at a time, while the training goes on.

    A context: at its end, last.pt is written. An error is raised at the next chance.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Take the run folder, and the device of the states."""
        self.folder, self.device = folder, device
        self.threads = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `state` as it is now; its tensors may change at once."""
        self.wait()
        copy = deepcopy(dict(state))  # on the device: quick, and in order with the steps
        copied = None
        if self.device.type == "cuda":
            copied = torch.cuda.current_stream(self.device).record_event()
        self.writing = self.threads.submit(self._write, copy, copied)

    def wait(self) -> None:
        """Wait until the latest state is written, or raise what prevented it."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: Mapping[str, Any], copied: "torch.cuda.Event | None") -> None:
        if copied is None:
            save_state(self.folder, state)
            return
        # a stream of its own: the copies to the host need not wait for later steps
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_event(copied)
        with torch.cuda.stream(stream):
            save_state(self.folder, state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.threads.shutdown()
        if kind is None:
            self.wait()


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read last.pt; None if the run was stopped before its first checkpoint."""
    path = folder / NAME
    if not path.exists():
        return None
    if device.type == "cpu":
        device = torch.device("cpu")  # of several processes it is cpu:0, which torch.load refuses
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds on a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a checkpoint ({reason}); start again without it") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{path}: not a checkpoint of atrous; start again without it")
    return state
