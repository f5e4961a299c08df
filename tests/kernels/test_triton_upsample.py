"""The GPU's upsampling, in Triton's interpreter where there is no GPU, against the CPU's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

from atrous.infer.upsample import logits_to_labels
from atrous.train.validation import labels_of, triton_labels

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def compare(classes: int, small: tuple[int, int], stride: int, crop: int, dtype: str) -> None:
    """Check the labels of two photos; they may differ where classes tie but for rounding."""
    from atrous.kernels.triton.upsample import gpu_labels

    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, classes, *small, generator=generator).to(getattr(torch, dtype))
    logits = logits.contiguous(memory_format=torch.channels_last)
    size = small[0] * stride - crop, small[1] * stride - crop
    labels = gpu_labels(logits.to(DEVICE), stride, size)
    assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int32)
    for index, photo in enumerate(logits.float().numpy()):
        found, expected = labels[index].cpu().numpy(), logits_to_labels(photo, stride, size)
        assert (found == expected).mean() > 0.9999
        values = torch.from_numpy(photo)[None]
        whole = [n * stride for n in small]
        values = interpolate(values, whole, mode="bilinear")[0, :, : size[0], : size[1]]
        chosen = values.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
        assert (values.max(0).values - chosen).max() < 1e-4


def compare_all() -> None:
    compare(5, (2, 3), 4, 3, "float32")
    compare(257, (1, 1), 1, 0, "float16")
    compare(3, (1, 35), 4, 2, "bfloat16")
    compare(1, (2, 2), 2, 0, "float32")


def use_in_validation() -> None:
    in_triton = triton_labels(DEVICE)
    assert in_triton is not None
    logits = torch.randn(6, 3, 4, generator=torch.manual_seed(0))
    labels = in_triton(logits[None].to(DEVICE), 4, (11, 15))[0].cpu()
    assert np.array_equal(labels, labels_of(logits, 4, (11, 15)))


def test_equals_the_cpu() -> None:
    code = "from test_triton_upsample import *; compare_all(); use_in_validation()"
    run_with_triton(code, Path(__file__).parent)


def test_machine_without_triton_goes_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "atrous.kernels.triton.upsample", raising=False)
    assert triton_labels.__wrapped__(DEVICE) is None


@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_for_a_gpu(capability: int) -> None:
    from atrous.kernels.triton.upsample import _upsample

    kinds = {"logits": "*bf16", "labels": "*u8", "scale": "fp32"}
    found = compile_for_gpu(_upsample, kinds, {"block": 128}, capability=capability)
    assert found.spilled == 0
