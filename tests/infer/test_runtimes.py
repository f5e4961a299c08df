"""Bundles and run folders behind one call, whatever computes them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from color_bundle import TAXONOMY
from networks import build
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.base import Runtime
from atrous.infer.runtimes.onnx import PROVIDERS, has_provider
from atrous.infer.runtimes.open import OF_BUNDLES, installed_runtimes_of, open_runtime
from atrous.infer.segmenter import Segmenter
from atrous.kernels import usable_cores

ON_THE_CPU = [name for name in OF_BUNDLES if not name.startswith("onnxruntime:")]

MODEL = {
    "name": "deeplabv3plus",
    "backbone": "resnet18",
    "num_classes": 4,
    "aspp_channels": 8,
    "decoder_channels": 8,
    "output_stride": 16,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled networks and choices to this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "atrous"


def open_or_skip(model: Path, name: str, threads: int = 1, calls: int = 1) -> Runtime:
    try:
        return open_runtime(model, threads, name, calls)
    except (ImportError, InputError) as error:
        pytest.skip(str(error))


def write_run(folder: Path) -> Path:
    torch.manual_seed(0)
    save_file(build(**MODEL).state_dict(), folder / "best.safetensors")
    run = {
        "format": 1,
        "model": MODEL,
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "taxonomy": TAXONOMY.to_dict(),
        "data": {"name": "paint", "licence": "CC0"},
        "recipe": {},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def write_heavy_bundle(path: Path) -> Path:
    """Write a bundle whose call takes a good part of a second of one core: convolutions."""
    weight = np.random.default_rng(0).normal(0, 0.02, (64, 64, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["x0"], pads=[1, 1, 1, 1]),
        *(
            helper.make_node("Conv", [f"x{i}", "weight"], [f"x{i + 1}"], pads=[1, 1, 1, 1])
            for i in range(8)
        ),
        helper.make_node("Conv", ["x8", "last"], ["logits"]),
    ]
    weights = {"first": weight[:, :3], "weight": weight, "last": weight[:4, :, :1, :1]}
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 4, "h", "w"])],
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = BundleMetadata(
        taxonomy=TAXONOMY, stride=1, precision="fp32", model="heavy", licence="CC0", version="0"
    )
    helper.set_model_props(model, metadata.to_properties())
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_bundle_maps_images_to_logits(name: str, tiny_bundle: Path, paint: np.ndarray) -> None:
    runtime = open_or_skip(tiny_bundle, name)
    library, _, precision = name.partition(":")
    assert (runtime.name, runtime.model_name) == (library, "paint")
    assert runtime.precision == (precision or "fp32")
    assert runtime.metadata == open_runtime(tiny_bundle, 1, "onnxruntime").metadata
    assert runtime.metadata.taxonomy == TAXONOMY
    logits = runtime(np.stack([paint, paint]))
    assert logits.shape == (2, 4, 8, 11)
    assert logits.dtype == np.float32
    assert logits[1, :, 0].argmax(0).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    before = logits.copy()
    assert runtime(paint[None, :9, :5]).shape == (1, 4, 3, 2)
    assert (logits == before).all()  # they are the caller's
    flipped = paint[None, :, ::-1]
    assert np.array_equal(runtime(flipped), runtime(np.ascontiguousarray(flipped)))


def test_openvino_agrees_with_onnxruntime(float_network: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 70, 101, 3), np.uint8)
    expected = open_runtime(float_network, 1, "onnxruntime")(image)
    logits = open_or_skip(float_network, "openvino")(image)
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.fixture(scope="module")
def float_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heavy_bundle(tmp_path_factory.mktemp("heavy") / "heavy.onnx")


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_calls_from_many_threads_return_their_own(name: str, tiny_bundle: Path) -> None:
    runtime = open_or_skip(tiny_bundle, name, threads=2, calls=2)
    random = np.random.default_rng(0)
    images = [
        random.integers(0, 256, (1, 5 + n % 7, 5 + n % 3, 3), dtype=np.uint8) for n in range(40)
    ]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(runtime, images))
    for image, logits in zip(images, together, strict=True):
        assert np.array_equal(logits, runtime(image))


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_threads_change_no_bit(name: str, float_network: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 70, 101, 3), np.uint8)
    expected = open_or_skip(float_network, name)(image)
    for threads, calls in ((2, 1), (2, 2)):
        assert np.array_equal(open_runtime(float_network, threads, name, calls)(image), expected)


@pytest.mark.parametrize("name", ON_THE_CPU)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_thread_computes(name: str, float_network: Path) -> None:
    image = np.zeros((1, 96, 96, 3), np.uint8)
    runtime = open_or_skip(float_network, name)
    assert runtime.threads == 1
    before, spent = ticks_by_thread(), [0]
    while sum(spent) < 40:
        runtime(image)
        spent = [ticks - before.get(thread, 0) for thread, ticks in ticks_by_thread().items()]
    assert max(spent) > 0.75 * sum(spent)  # of two, each would have half


def ticks_by_thread() -> dict[str, int]:
    """Processor time that each thread of this process has spent, in clock ticks."""
    ticks = {}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        ticks[task.name] = int(fields[11]) + int(fields[12])  # user and system
    return ticks


def test_threads_can_be_chosen(tiny_bundle: Path) -> None:
    assert open_runtime(tiny_bundle, threads=1).threads == 1
    assert open_runtime(tiny_bundle).threads == usable_cores() >= 1
    with pytest.raises(InputError, match=r"--threads 0: give a number from 1"):
        open_runtime(tiny_bundle, threads=0)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_files_that_are_no_bundles(name: str, tmp_path: Path, tiny_bundle: Path) -> None:
    open_or_skip(tiny_bundle, name)
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(InputError, match=rf"text\.onnx: {name} cannot load it \(.+\); give"):
        open_runtime(text, 1, name)
    plain = tmp_path / "plain.onnx"
    graph = onnx.parser.parse_graph("g (float[N] x) => (float[N] y) { y = Abs(x) }")
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, plain)
    with pytest.raises(InputError, match=r"plain\.onnx: an \.onnx file, but no atrous bundle"):
        open_runtime(plain, 1, name)


def test_runtimes_that_do_not_fit(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--runtime openvin: no such .*Did you mean openvino\?"):
        open_runtime(tiny_bundle, runtime="openvin")
    with pytest.raises(InputError, match=r"paint\.onnx: torch takes run folders only"):
        open_runtime(tiny_bundle, runtime="torch")
    with pytest.raises(InputError, match=r"onnxruntime takes a bundle, .* atrous export"):
        open_runtime(tmp_path, runtime="onnxruntime")
    with pytest.raises(InputError, match=r"no run folder: it holds no run\.json"):
        open_runtime(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", r"no CUDAExecutionProvider; pip uninstall onnxruntime, then .* onnxruntime-gpu$"),
        ("tensorrt", r"no TensorrtExecutionProvider; .* pip install onnxruntime-gpu$"),
        ("coreml", r"no CoreMLExecutionProvider; only builds for macOS have it$"),
        ("directml", r"no DmlExecutionProvider; on Windows: .* onnxruntime-directml$"),
    ],
)
def test_a_provider_that_the_build_lacks(name: str, message: str, tiny_bundle: Path) -> None:
    if has_provider(PROVIDERS[name]):
        pytest.skip("this build has it")
    assert f"onnxruntime:{name}" not in installed_runtimes_of(tiny_bundle)
    with pytest.raises(InputError, match=f"^onnxruntime:{name}: the installed .* {message}"):
        open_runtime(tiny_bundle, 1, f"onnxruntime:{name}")


@pytest.mark.parametrize(
    ("system", "devices"), [("linux", {"cuda"}), ("win32", {"cuda"}), ("darwin", {"mps"})]
)
def test_a_device_of_another_system_is_not_listed(
    system: str, devices: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    names = installed_runtimes_of(tmp_path)  # a folder
    assert names[:2] == ("torch", "torch:bf16")
    assert {name for name in ("cuda", "mps") if f"torch:{name}" in names} == devices
    assert ("torch:cuda-compile-bf16" in names) == ("cuda" in devices)


def with_cuda(monkeypatch: pytest.MonkeyPatch, opened: list[str], printed: str = "") -> None:
    """Let onnxruntime claim CUDA, and open sessions on the providers `opened`."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    class Session:
        def __init__(self, *arguments, providers, **options) -> None:
            assert providers == ["CUDAExecutionProvider", "CPUExecutionProvider"]
            self.session = real(*arguments, providers=providers[1:], **options)
            self.get_modelmeta, self.run = self.session.get_modelmeta, self.session.run

        def get_providers(self) -> list[str]:
            return opened

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(printed))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


def test_a_provider_that_the_build_has(
    tiny_bundle: Path, paint: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_runtime(tiny_bundle, 1, "onnxruntime")(paint[None])
    with_cuda(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert installed_runtimes_of(tiny_bundle)[:2] == ("onnxruntime", "onnxruntime:cuda")
    runtime = open_runtime(tiny_bundle, 1, "onnxruntime:cuda")
    assert runtime.name == "onnxruntime cuda"
    assert np.array_equal(runtime(paint[None]), expected)


def test_a_silent_fall_back_to_the_cpu_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_cuda(monkeypatch, ["CPUExecutionProvider"], "\033[33mFailed to load\nlibcudnn.so.9")
    with pytest.raises(
        InputError,
        match=r"^onnxruntime:cuda: CUDAExecutionProvider did not start \(.*Failed to load "
        r"libcudnn\.so\.9\); it needs an NVIDIA GPU with its driver, and the CUDA and cuDNN",
    ):
        open_runtime(tiny_bundle, 1, "onnxruntime:cuda")
    assert capsys.readouterr() == ("", "")


def test_a_run_folder_in_torch(tmp_path: Path, paint: np.ndarray) -> None:
    runtime = open_runtime(write_run(tmp_path), threads=1)
    assert (runtime.name, runtime.model_name) == ("torch", tmp_path.name)
    assert (runtime.metadata.stride, runtime.metadata.licence) == (4, "CC0")
    logits = runtime(paint[None])
    torch.manual_seed(0)
    network = build(**MODEL).eval()
    with torch.inference_mode():
        image = torch.from_numpy((paint[None] / 255 - 0.5) / 0.25).float().permute(0, 3, 1, 2)
        expected = network(image).logits.numpy()
    assert logits.shape == (1, 4, 8, 11)
    assert np.abs(logits - expected).max() < 1e-4
    narrow = open_runtime(tmp_path, 1, "torch:bf16")
    assert narrow.precision == "bf16"
    assert 0 < np.abs(narrow(paint[None]) - expected).max() < 0.05 * np.abs(expected).max()
    assert Segmenter(runtime)(paint).model == f"{tmp_path.name} (fp32, torch, 1 thread)"
    if not torch.cuda.is_available():
        with pytest.raises(
            InputError, match=r"torch finds no cuda device here; take the runtime torch"
        ):
            open_runtime(tmp_path, 1, "torch:cuda")


def test_a_compiled_network_is_kept(tiny_bundle: Path, own_cache: Path, paint: np.ndarray) -> None:
    expected = open_or_skip(tiny_bundle, "openvino")(paint[None])
    (kept,) = own_cache.glob("*.openvino")
    whole = kept.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        whole,
        b"",
        b"{}\n",
        b"[]",
        whole[:middle],
        whole[:middle] + bytes(20) + whole[middle + 20 :],
    ):
        kept.write_bytes(damaged)
        runtime = open_runtime(tiny_bundle, 1, "openvino")
        assert np.array_equal(runtime(paint[None]), expected)
        assert (kept.read_bytes() == damaged) == (damaged is whole)  # or else it is made again
    changed = own_cache.parent / "paint.onnx"
    model = onnx.load(tiny_bundle)
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.float32([0, 9e9, 0, 0]), model.graph.initializer[1].name)
    )
    onnx.save(model, changed)
    assert (open_runtime(changed, 1, "openvino")(paint[None]).argmax(1) == 1).all()


def test_a_cache_that_cannot_be_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paint: np.ndarray
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_or_skip(tiny_bundle, "openvino")(paint[None]).shape == (1, 4, 8, 11)
    assert open_runtime(tiny_bundle).name == "onnxruntime"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_nothing_is_sent_or_written_elsewhere(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """In a process of its own, since libraries report when they are imported."""
    open_or_skip(tiny_bundle, name)
    code = f"""
import pathlib, socket, sys
def refuse(*arguments): raise SystemExit("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
sys.addaudithook(lambda event, _: refuse() if event.startswith("socket.") else None)
import numpy
from atrous.infer.runtimes.open import open_runtime
path = pathlib.Path({str(tiny_bundle)!r})
open_runtime(path, 1, {name!r})(numpy.zeros((1, 8, 8, 3), numpy.uint8))
import threading
print(sorted(name for name in sys.modules if "telemetry" in name), threading.active_count())
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "USERPROFILE": str(home), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "openvino_telemetry" not in done.stdout
    assert done.stdout.endswith(" 1\n")
    written = [path for path in home.rglob("*") if path.is_file()]
    assert all(path.parent == home / ".cache" / "atrous" for path in written)


@pytest.mark.slow
def test_first_calls_in_openvino_may_come_together() -> None:
    """In processes of their own, since a process makes a first call once."""
    pytest.importorskip("openvino")
    code = "import faulthandler, numpy, threading\n"
    code += "faulthandler.dump_traceback_later(300, exit=True)\n"
    code += "from atrous.infer.runtimes.open import open_runtime\n"
    code += "from atrous.weights.hub import zoo_path\n"
    code += "runtime = open_runtime(zoo_path('camvid'), 2, 'openvino', calls=2)\n"
    code += "together, image = threading.Barrier(2), numpy.zeros((1, 64, 64, 3), 'u1')\n"
    code += "def call(): together.wait(); runtime(image)\n"
    code += "threads = [threading.Thread(target=call) for _ in range(2)]\n"
    code += "[thread.start() for thread in threads]\n"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
