from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from atrous.errors import InputError
from atrous.infer.runtimes.open import OnnxRuntime, TorchRuntime

pytestmark = pytest.mark.slow  # for the export that they share


@pytest.mark.parametrize("shape", [(1, 50, 70, 3), (2, 33, 64, 3), (1, 1, 1, 3), (1, 32, 97, 3)])
def test_the_bundle_gives_torchs_logits_at_any_size(run_folder, float_bundle, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = TorchRuntime(run_folder, threads=1)(images)
    logits = OnnxRuntime(float_bundle, threads=1)(images)
    assert logits.dtype == np.float32
    assert logits.shape == (shape[0], 4, -(-shape[1] // 4), -(-shape[2] // 4))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * expected.std() + 1e-5)


@pytest.mark.filterwarnings("error")
def test_an_image_that_cannot_be_written_gives_no_warning(run_folder):
    images = np.zeros((1, 20, 30, 3), np.uint8)
    images.flags.writeable = False
    assert TorchRuntime(run_folder, threads=1)(images).shape == (1, 4, 5, 8)


def test_sizes_are_computed_for_the_padding_the_mean_and_the_crop_alone(float_bundle):
    graph = onnx.load(float_bundle).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert not kinds.keys() & {"If", "Loop", "BatchNormalization", "NonZero", "ConstantOfShape"}
    assert kinds["Pad"] == kinds["Expand"] == 1
    assert kinds["Slice"] == 2
    assert kinds["Shape"] <= 3
    assert all(tuple(node.input) == ("image",) for node in graph.node if node.op_type == "Shape")


def test_the_file_stands_alone_and_describes_itself(float_bundle, run_folder):
    model = onnx.load(float_bundle, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    metadata = OnnxRuntime(float_bundle, threads=1).metadata
    assert metadata.taxonomy.classes == ("ground", "disc", "square", "triangle")
    assert (metadata.stride, metadata.precision, metadata.licence) == (4, "fp32", "CC0-1.0")
    assert metadata.recipe == {"num_steps": 7}


def test_no_path_of_the_machine_is_left_in_the_file(float_bundle):
    content = float_bundle.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b"/somewhere/else" not in content
    assert b"site-packages" not in content


def test_a_folder_without_a_run_is_refused(tmp_path):
    from atrous.export import export_bundle

    with pytest.raises(InputError, match=r"run\.json"):
        export_bundle(tmp_path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
