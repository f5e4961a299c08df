"""The GPU's upsampling, in Triton's interpreter where there is no GPU, against the CPU's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

from atrous.infer.upsample import logits_to_labels_confidence
from atrous.kernels.triton import is_usable
from atrous.models.layers import upsample

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def compare(
    classes: int, small: tuple[int, int], stride: int, crop: int, dtype: str, aligned: bool = False
) -> None:
    """Check the labels of two photos; they may differ where classes tie but for rounding."""
    from atrous.kernels.triton.upsample import gpu_labels, gpu_labels_confidence

    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, classes, *small, generator=generator).to(getattr(torch, dtype))
    logits = logits.contiguous(memory_format=torch.channels_last)
    size = small[0] * stride - crop, small[1] * stride - crop
    labels = gpu_labels(logits.to(DEVICE), stride, size, aligned=aligned)
    again, confidence = gpu_labels_confidence(logits.to(DEVICE), stride, size, aligned=aligned)
    assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int32)
    assert torch.equal(labels, again)
    for index, photo in enumerate(logits.float().numpy()):
        found, sure = labels[index].cpu().numpy(), confidence[index].cpu().numpy()
        expected, theirs = logits_to_labels_confidence(photo, stride, size, aligned=aligned)
        assert (found == expected).mean() > 0.9999
        np.testing.assert_allclose(sure, theirs, rtol=0, atol=2e-6)
        values = upsample(torch.from_numpy(photo)[None], stride, size, aligned=aligned)[0]
        chosen = values.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
        assert (values.max(0).values - chosen).max() < 1e-4


def compare_all() -> None:
    compare(5, (2, 3), 4, 3, "float32")
    compare(257, (1, 1), 1, 0, "float16")
    compare(3, (1, 35), 4, 2, "bfloat16")
    compare(1, (2, 2), 2, 0, "float32")
    compare(7, (3, 2), 4, 1, "float32", aligned=True)


def test_equals_the_cpu() -> None:
    code = "from test_triton_upsample import compare_all; compare_all()"
    run_with_triton(code, Path(__file__).parent)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("with_confidence", [False, True])
def test_compiles_for_a_gpu(with_confidence: bool, capability: int) -> None:
    from atrous.kernels.triton.upsample import _upsample

    kinds = {"logits": "*bf16", "labels": "*u8", "confidence": "*fp32", "scale": "fp32"}
    constants = {"center": 0.5, "with_confidence": with_confidence, "block": 128}
    found = compile_for_gpu(_upsample, kinds, constants, capability=capability)
    assert found.spilled == 0 and found.registers <= 64


def test_machine_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "atrous.kernels.triton.upsample", raising=False)
    with pytest.warns(UserWarning, match=r"no kernels in Triton \(.*triton.*\): slower"):
        assert not is_usable.__wrapped__("cuda")
