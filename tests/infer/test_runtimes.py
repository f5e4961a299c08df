"""A bundle and a run folder behind the same call."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from color_bundle import TAXONOMY
from safetensors.torch import save_file

from atrous.files import InputError
from atrous.infer.runtimes import OnnxRuntime, open_runtime, usable_cores
from atrous.infer.segmenter import Segmenter
from atrous.models.catalogue import build


def test_bundle_maps_images_to_logits(tiny_bundle: Path, paint: np.ndarray) -> None:
    runtime = open_runtime(tiny_bundle)
    assert (runtime.name, runtime.model_name) == ("onnxruntime", "paint")
    assert runtime.threads == usable_cores() >= 1
    assert runtime.metadata.taxonomy == TAXONOMY
    logits = runtime(np.stack([paint, paint]))
    assert logits.shape == (2, 4, 8, 11)
    assert logits.dtype == np.float32
    assert logits[1, :, 0].argmax(0).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_threads_can_be_chosen(tiny_bundle: Path) -> None:
    assert open_runtime(str(tiny_bundle), threads=1).threads == 1


def test_files_that_are_no_bundles(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"text\.onnx: onnxruntime cannot load it"):
        OnnxRuntime(text)
    plain = tmp_path / "plain.onnx"
    graph = onnx.parser.parse_graph("g (float[N] x) => (float[N] y) { y = Abs(x) }")
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, plain)
    with pytest.raises(InputError, match=r"plain\.onnx: an \.onnx file, but no atrous bundle"):
        OnnxRuntime(plain)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder: it holds no run\.json"):
        open_runtime(tmp_path)


def test_a_run_folder_in_torch(tmp_path: Path, paint: np.ndarray) -> None:
    model = {
        "name": "deeplabv3plus",
        "backbone": "resnet18",
        "num_classes": 4,
        "aspp_channels": 8,
        "decoder_channels": 8,
        "output_stride": 16,
    }
    network = build(**model)
    save_file(network.state_dict(), tmp_path / "best.safetensors")
    run = {
        "format": 1,
        "model": model,
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "taxonomy": TAXONOMY.to_dict(),
        "data": {"name": "paint", "licence": "CC0"},
        "recipe": {},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    runtime = open_runtime(tmp_path, threads=1)
    assert (runtime.name, runtime.model_name) == ("torch", tmp_path.name)
    assert runtime.metadata.stride == 4
    assert runtime.metadata.licence == "CC0"
    logits = runtime(paint[None])
    with torch.inference_mode():
        image = torch.from_numpy((paint[None] / 255 - 0.5) / 0.25).float().permute(0, 3, 1, 2)
        expected = network.eval()(image).logits.numpy()
    assert logits.shape == (1, 4, 8, 11)
    assert np.abs(logits - expected).max() < 1e-4
    assert Segmenter(runtime)(paint).labels.shape == (30, 41)
