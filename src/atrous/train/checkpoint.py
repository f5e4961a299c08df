"""last.pt: the state of a training, for a resume.

All random draws depend only on the seed and the step, so the state has weights, optimiser, average
and step, but no random state. The file is replaced whole: a killed process leaves the previous one.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read last.pt; None if the run was stopped before its first checkpoint."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds on a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a checkpoint ({reason}); start again without it") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{path}: not a checkpoint of atrous; start again without it")
    return state
