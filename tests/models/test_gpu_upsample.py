"""The GPU's upsampling, in Triton's interpreter where there is no GPU, against the CPU's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")


def compare(classes: int, small: tuple[int, int], stride: int, crop: int, dtype: str) -> None:
    """Check the labels and probabilities of two photos; for a process of its own."""
    from atrous.infer.upsample import photo_labels_confidence
    from atrous.models.gpu_upsample import gpu_labels, gpu_labels_confidence

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, classes, *small, generator=generator).to(getattr(torch, dtype))
    logits = logits.contiguous(memory_format=torch.channels_last)
    size = small[0] * stride - crop, small[1] * stride - crop
    labels, confidence = gpu_labels_confidence(logits.to(device), stride, size)
    assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int32)
    assert torch.equal(gpu_labels(logits.to(device), stride, size), labels)
    for index, photo in enumerate(logits.float().numpy()):
        expected, probable = photo_labels_confidence(photo, stride, size)
        assert (labels[index].cpu().numpy() == expected).mean() > 0.9999
        np.testing.assert_allclose(confidence[index].cpu(), probable, atol=1e-5)


def compare_all() -> None:
    compare(5, (3, 5), 4, 3, "float32")
    compare(257, (1, 1), 1, 0, "float16")
    compare(3, (1, 35), 4, 2, "bfloat16")
    compare(1, (2, 2), 2, 0, "float32")


def test_equals_the_cpu() -> None:
    code = "from test_gpu_upsample import compare_all; compare_all()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("with_confidence", [False, True])
def test_compiles_for_a_gpu(with_confidence: bool) -> None:
    """Triton needs no GPU to compile for one."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as compile_for

    from atrous.models.gpu_upsample import _upsample

    kinds = {"logits": "*bf16", "labels": "*u8", "confidence": "*fp32", "scale": "fp32"}
    names = _upsample.arg_names[:-2]
    constants = {"with_confidence": with_confidence, "block": 128}
    signature = {name: kinds.get(name, "i32") for name in names}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(_upsample, signature, constants)
    assert "st.global" in compile_for(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
