"""A bundle in OpenVINO, on the CPU.

Compiling takes half a second, so the compiled network is kept in the cache folder: one file for
each name of a model and each way to compile it. Shapes stay free. A photo whose sides, rounded up
to multiples of the output stride, are new costs some 30 ms more, once.
"""

import ctypes
import json
import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata, damaged
from atrous.infer.runtimes.base import BundleRuntime
from atrous.weights.cache import file_hash, keep, read_kept

_core_lock = RLock()
_cores: list[Any] = []  # the one core of this process, once it is made


class OpenvinoRuntime(BundleRuntime):
    """A bundle in OpenVINO, on the CPU."""

    name = "openvino"

    def __init__(
        self, path: Path | str, threads: int | None = None, calls: int = 1, *, bf16: bool = False
    ):
        """Load the bundle at `path`; see `atrous.infer.runtimes.open.open_runtime`.

        Args:
            path: the bundle's file.
            threads: threads of all calls together.
            calls: calls at a time.
            bf16: compute the float layers in 16 bits instead of 32.
        """
        super().__init__(path, threads)
        openvino = import_openvino()
        if bf16 and "BF16" not in _core(openvino).get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("openvino:bf16: this processor cannot compute in bf16; take openvino")
        options = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": calls,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "ENABLE_CPU_PINNING": False,  # else two processes share their first core
        }
        # OpenVINO builds its tables of types at their first use; two threads that do so at the same
        # time deadlock.
        openvino.Tensor(np.zeros(1, np.uint8)).element_type.to_dtype()
        properties, compiled = self._compile(openvino, options)
        self.metadata = BundleMetadata.from_properties(properties, str(path))
        self.precision: str = self.metadata.precision
        if bf16:
            self.precision = "bf16" if self.precision == "fp32" else f"{self.precision}+bf16"
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(calls):
            self._requests.put(compiled.create_infer_request())

    def run(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute the graph's output `logits`."""
        request = self._requests.get()
        try:
            request.infer([np.ascontiguousarray(images)], share_inputs=True)
            return np.array(request.get_output_tensor(0).data)  # a copy: the tensor is used again
        finally:
            self._requests.put(request)

    def reason(self, error: Exception) -> str:
        """Return the last line of an error of OpenVINO."""
        return str(error).strip().rpartition("\n")[2].rstrip(".")

    def _compile(self, openvino: Any, options: Mapping[str, Any]) -> tuple[dict[str, str], Any]:
        """Return the bundle's properties and its compiled network, from the cache if possible."""
        core = _core(openvino)
        of_processor = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        key = [core.get_property("CPU", name) for name in of_processor]
        key += [openvino.get_version(), file_hash(self.path)]
        name = "-".join([self.model_name, *map(str, options.values())]) + ".openvino"
        if unpacked := _unpacked(read_kept(name), key):
            properties, network = unpacked
            return properties, core.import_model(network, "CPU", options)
        properties, model = self._read()
        compiled = core.compile_model(model, "CPU", options)
        network = compiled.export_model().getvalue()
        head = {"key": key, "properties": properties, "sha256": sha256(network).hexdigest()}
        keep(name, json.dumps(head).encode() + b"\n" + network)
        return properties, compiled

    def _read(self) -> tuple[dict[str, str], Any]:
        """Return the properties of the .onnx file and OpenVINO's form of its graph."""
        from openvino.frontend import FrontEndManager

        self.path.open("rb").close()  # raises clearer errors
        frontend = FrontEndManager().load_by_framework("onnx")
        try:
            model = frontend.convert(frontend.load(str(self.path)))
        except Exception as error:  # OpenVINO's errors are RuntimeErrors of many lines
            raise self.load_error(error) from None
        try:
            properties = dict(model.get_rt_info().items()).get("framework", {})
            return {name: str(value.value) for name, value in properties.items()}, model
        except UnicodeDecodeError as error:
            raise damaged(str(self.path), error) from None


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports to its maker as soon as it is imported.

    OpenVINO runs without the package `openvino_telemetry` if that is not installed. The package is
    hidden during the import, so nothing is sent, started or written, now or later.
    """
    theirs = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # forbids its import
    try:
        import openvino
    finally:
        sys.modules.pop("openvino_telemetry", None)  # another thread may have removed it
        if theirs is not None:
            sys.modules["openvino_telemetry"] = theirs
    return openvino


def _core(openvino: Any) -> Any:
    """Return the one core of this process, which is never destroyed.

    A core installs a stack for signal handlers, and its destruction restores the previous one. If
    cores are destroyed in the order of their creation, the process is left with a stack that is no
    longer mapped, and the next signal (SIGCHLD, Ctrl-C) causes a segmentation fault.
    """
    with _core_lock:
        if not _cores:
            core = openvino.Core()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))  # else Python destroys it at exit
            if sys.platform != "win32":
                _prepare_forks(openvino)
            _cores.append(core)
        return _cores[0]


def _prepare_forks(openvino: Any) -> None:
    """End the idle threads before a fork: the child would wait for them for ever."""

    def before() -> None:
        _core_lock.acquire()
        openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")  # ends them with its core

    os.register_at_fork(
        before=before, after_in_parent=_core_lock.release, after_in_child=_core_lock.release
    )


def _unpacked(cached: bytes, key: list[Any]) -> tuple[dict[str, str], bytes] | None:
    """Return the properties and the network in `cached`; None if damaged or of another key."""
    line, _, network = cached.partition(b"\n")
    try:
        head = json.loads(line)
        if head["key"] == key and head["sha256"] == sha256(network).hexdigest():
            return head["properties"], network
    except (ValueError, KeyError, TypeError):  # missing or damaged
        pass
    return None
