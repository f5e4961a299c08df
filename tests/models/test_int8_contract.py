"""Every model keeps its logits in 8 bits; test_export_contract.py proves the float graphs."""

import numpy as np
import pytest
import torch
from torch import nn

from atrous.data.dataset import Dataset
from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.export.graph import to_onnx, write_bundle
from atrous.export.quantize import quantize
from atrous.export.sensitivity import relative_noise
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes import OnnxRuntime
from atrous.models.catalogue import MODELS, build, normalization
from atrous.models.photo import PhotoNetwork
from atrous.train.recipe import Recipe
from atrous.train.upsampled_loss import upsampled_loss

CASES = [*((model, {}) for model in MODELS), ("unet", {"upsampling": "transposed"})]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Images (8, 64, 64, 3) and labels (8, 64, 64)."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    split = Dataset.open(write_shapes(folder, num_train=8, size=(64, 64))).split("train")
    read = [split[i] for i in range(len(split))]
    return np.stack([s.image for s in read]), np.stack([s.label for s in read])


def trained(model, options, images, labels):
    """A network after five steps: what is untrained has no scores that could be told apart."""
    torch.manual_seed(0)
    backbone = "resnet18" if MODELS[model].has_backbone else "none"
    network = build(model, num_classes=4, backbone=backbone, **options)
    photo = PhotoNetwork(network, *normalization(backbone)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    image, label = torch.from_numpy(images), torch.from_numpy(labels)
    for step in range(5):
        batch = slice(4 * (step % 2), 4 * (step % 2) + 4)
        upsampled_loss(photo(image[batch]), label[batch], photo.stride, Recipe()).backward()
        optimizer.step()
        optimizer.zero_grad()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what comes now
    with torch.no_grad():
        photo(image)
    return photo.eval()


@pytest.mark.parametrize(("model", "options"), CASES)
def test_int8_is_near_torch_at_any_size(model, options, samples, tmp_path):
    images, labels = samples
    photo = trained(model, options, images, labels)
    about = BundleMetadata(
        taxonomy=TAXONOMY,
        stride=photo.stride,
        precision="fp32",
        model=model,
        licence="",
        version="",
    )
    write_bundle(to_onnx(photo), about, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", iter(images))
    int8 = OnnxRuntime(tmp_path / "int8.onnx", threads=1)
    for height, width in ((64, 64), (61, 39), (5, 33)):
        photos = images[:2, :height, :width]
        with torch.no_grad():
            expected = photo(torch.from_numpy(photos)).numpy()
        logits = int8(photos)
        assert logits.shape == expected.shape
        assert relative_noise(expected, logits) < 0.02
