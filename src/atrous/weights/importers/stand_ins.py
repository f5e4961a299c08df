"""Checkpoints with foreign objects beside the weights: read without running any of their code.

torch's weights-only reader refuses a file that holds an argparse.Namespace, a HistoryBuffer or a
whole network. Here every global of the pickle becomes the inert `StandIn`, but for names of dtypes
and of the functions in `_MAKERS`, which view bytes as tensors. Nothing is imported or called that
is not in this file. Both formats of torch.save are read: the archive, and the one before torch 1.6.
"""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in a file from before torch 1.6."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Types of storages, by the names that torch.save gives them."""

_MOST_MODULES = 10_000
"""A network that has more is within itself."""


class StandIn(dict[Any, Any]):
    """An object of any class as it was written: items and state, without behaviour."""

    __slots__ = ("state",)
    __hash__ = object.__hash__  # type: ignore[assignment]  # a path may be a key
    __eq__ = object.__eq__
    state: Any

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Take what any class takes."""
        made = super().__new__(cls)
        made.state = None
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        """Stand in for a function's result."""
        return StandIn()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, _: Any) -> None:
        """Stand in for a list's or a deque's."""

    add = extend = append


class Held(NamedTuple):
    """A tensor or storage, wrapped so that a pickle can do nothing with it."""

    tensor: Tensor


def load_with_stand_ins(path: Path) -> Any:
    """Return the content of a file of torch.save; tensors are `Held`, other objects `StandIn`.

    A file of neither format, or a damaged one, raises exceptions of any kind.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _load_archive(archive)
    with path.open("rb") as file:
        return _load_legacy(file, path.stat().st_size)


def state_of(module: Any) -> dict[str, Any] | None:
    """Return what state_dict() of a pickled network returned, or None if it is no network."""
    found: dict[str, Any] = {}
    todo: list[tuple[str, Any]] = [("", module)]
    for _ in range(_MOST_MODULES):
        if not todo:
            return found
        prefix, part = todo.pop()
        state = part.state if isinstance(part, StandIn) and isinstance(part.state, dict) else {}
        parts: list[Any] = [state.get(k) for k in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(x, dict) and all(isinstance(n, str) for n in x) for x in parts):
            return None
        parameters, buffers, modules = parts
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        saved = [*parameters.items(), *((n, v) for n, v in buffers.items() if n not in passing)]
        found |= {f"{prefix}{name}": value for name, value in saved if value is not None}
        children = [(name, child) for name, child in modules.items() if child is not None]
        todo += [(f"{prefix}{name}.", child) for name, child in reversed(children)]
    return None


_DISPATCH: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
"""What Python's unpickler does for each operation."""


class _Unpickler(pickle._Unpickler):
    """Python's own in Python: the one in C allots whatever memory a damaged file asks for."""

    def __init__(self, file: IO[bytes], load_storage: Callable[..., Held]) -> None:
        super().__init__(file, encoding="latin1")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return DTYPES[name]
        return _MAKERS.get(f"{module}.{name}", StandIn)

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid
        return self._load_storage(*rest) if kind == "storage" else StandIn  # a class's source

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"an extension of copyreg ({code})")

    def load_build(self) -> None:
        """Give a state to stand-ins alone: of all else, setting an attribute would change it."""
        if not isinstance(self.stack[-2], StandIn):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("a state for what has none")
        _DISPATCH[pickle.BUILD[0]](self)

    dispatch: ClassVar[Any] = {**_DISPATCH, pickle.BUILD[0]: load_build}


def _tensor(storage: Held, offset: int, size: Any, stride: Any, *_: Any) -> Held:
    return Held(storage.tensor.as_strided(size, stride, offset))  # torch checks the bounds


def _parameter(data: Held, *_: Any) -> Held:
    return Held(data.tensor)


def _subclass(maker: Callable[..., Held], _: Any, arguments: Any, __: Any) -> Held:
    return Held(maker(*arguments).tensor)


_MAKERS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "__builtin__.set": set,  # of names, in a whole network
    "builtins.set": set,
}


def _load_archive(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("the bytes of its numbers are the other way round")
    storages: dict[str, Held] = {}

    def load_storage(dtype: torch.dtype, key: str, _: str, count: int) -> Held:
        if key not in storages:
            content = bytearray(archive.read(f"{root}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            storages[key] = Held(torch.frombuffer(content, dtype=dtype) if content else empty)
        if len(storages[key].tensor) != count:
            raise ValueError(f"storage {key} is cut off")
        return storages[key]

    with archive.open(f"{root}data.pkl") as file:
        return _Unpickler(file, load_storage).load()


def _load_legacy(file: IO[bytes], file_size: int) -> Any:
    storages: dict[str, Held] = {}

    def load_storage(
        dtype: torch.dtype, key: str, _: str, count: int, view: tuple[str, int, int] | None
    ) -> Held:
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= file_size:
                raise ValueError(f"storage {key} is larger than the file")
            storages[key] = Held(torch.empty(count, dtype=dtype))
        if view is None:
            return storages[key]
        _, offset, size = view
        return Held(storages[key].tensor[offset : offset + size])

    def load() -> Any:
        return _Unpickler(file, load_storage).load()

    if load() != _MAGIC:
        raise ValueError("no file of torch.save")
    _version, _system, content, keys = load(), load(), load(), load()
    for key in keys:
        tensor = storages[key].tensor
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(tensor.nbytes)
        if count != len(tensor) or len(raw) != tensor.nbytes:
            raise ValueError(f"storage {key} is cut off")
        if raw:
            tensor.copy_(torch.frombuffer(bytearray(raw), dtype=tensor.dtype))
    return content
