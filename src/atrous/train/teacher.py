"""Distillation: the student learns the classes' probabilities of trained networks, too.

The loss is that of Hinton et al. 2015 (arXiv:1503.02531) in each cell of the student's logits,
which is cheap, since nothing is upsampled. It needs no labels: ignored pixels take part. Padding
does not: no teacher was ever told what is there.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from msgspec import UNSET
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands
from atrous.models.bf16 import Bf16
from atrous.progress import Notify, unheard
from atrous.run import RunData, has_run, load_run, weights_file
from atrous.train.processes import num_processes, summed
from atrous.train.recipe import Recipe

_GRID = 32
"""A multiple of every output stride, to which a network pads at the right."""


class Teachers:
    """Trained networks, whose probabilities are averaged over themselves, scales and mirror images.

    The mean is that of `atrous.infer.tta`, on the device and for a batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        classes: Sequence[str],
        channels: int,
        device: torch.device,
        bands: Bands = COLORS,
        notify: Notify = unheard,
    ) -> None:
        """Load the run folders of a recipe.

        Args:
            recipe: teacher, teacher_flip, teacher_scales, teacher_temperature; the arithmetic is
                bfloat16 if `precision` is "bf16", otherwise float32.
            classes: names of the student's classes.
            channels: C of the images.
            device: where the teachers run.
            bands: of the images.
            notify: called if a teacher's run records others.
        """
        ours = RunData(bands=list(bands.numbers) or UNSET, range=bands.value_range or UNSET)
        self.flip, self.scales = recipe.teacher_flip, recipe.teacher_scales or (1.0,)
        self.temperature, bf16 = recipe.teacher_temperature, recipe.precision == "bf16"
        self.autocast = torch.autocast(device.type, torch.bfloat16, bf16 and device.type != "cuda")
        self.networks: list[tuple[nn.Module, int, bool]] = []  # each with its stride and `aligned`
        self.digests: list[str] = []
        for folder in recipe.teacher:
            if not has_run(folder):
                raise InputError(
                    f"--teacher {folder}: no run folder, which a teacher must be (a bundle is "
                    "none); give one, or its place where it has moved"
                )
            photo, taxonomy, run = load_run(folder)
            if taxonomy.classes != tuple(classes):
                raise InputError(
                    f"{folder}: a teacher of other classes than the data's; give runs that were "
                    "trained on the same classes in the same order"
                )
            if run.in_channels != channels:
                raise InputError(
                    f"{folder}: a teacher of images with {run.in_channels} bands, not {channels}; "
                    "give runs that were trained on the same bands"
                )
            if run.data.data is not UNSET and run.data.bands_text() != ours.bands_text():
                notify(
                    f"{folder}: was trained on images of {run.data.bands_text()}; those with "
                    f"{ours.bands_text()} are taken for the same"
                )
            photo = photo.to(device).to(memory_format=torch.channels_last).requires_grad_(False)
            network = Bf16(photo) if bf16 and device.type == "cuda" else photo
            self.networks.append((network.eval(), photo.stride, photo.aligned))
            self.digests.append(sha256(weights_file(Path(folder)).read_bytes()).hexdigest())

    @torch.no_grad()
    def __call__(self, images: Tensor, stride: int, *, aligned: bool = False) -> Tensor:
        """Return the mean probabilities of images.

        Args:
            images: (B, H, W, C) uint8.
            stride: of the student's logits.
            aligned: their cells lie on pixels.

        Returns:
            (B, K, ceil(H / stride), ceil(W / stride)) float32.
        """
        height, width = images.shape[1:3]
        cells = -(-height // stride), -(-width // stride)
        planes = images.permute(0, 3, 1, 2).float()  # (B, C, H, W)
        total = torch.zeros((), device=images.device)
        for scale in self.scales:
            size = [max(1, round(height * scale)), max(1, round(width * scale))]
            scaled = planes if scale == 1 else transforms.resize(planes, size, antialias=True)
            for network, own, is_aligned in self.networks:
                # from an image's edge to the first cell's centre
                edge, own_edge = 0.5 if aligned else stride / 2, 0.5 if is_aligned else own / 2
                axes = [
                    (factor * stride / own, (factor * edge - own_edge) / own)
                    for factor in (size[0] / height, size[1] / width)
                ]
                seen = self._probabilities(network, own, scaled, aligned=is_aligned)
                total = total + _sampled(seen, axes, cells)
        return total / (len(self.scales) * len(self.networks))

    def _probabilities(
        self, network: nn.Module, stride: int, planes: Tensor, *, aligned: bool
    ) -> Tensor:
        """Return the probabilities (B, K, h, w) of images (B, C, H, W), mirrored ones included."""
        if not self.flip:
            return self._softmax(network, planes)
        # A network pads at the right: only a width that needs no padding keeps its cells in place
        # when it is mirrored.
        width = planes.shape[3]
        padded = F.pad(planes, (0, (int(aligned) - width) % _GRID, 0, 0), mode="replicate")
        mirrored = self._softmax(network, padded.flip(3)).flip(3)
        mean = (self._softmax(network, padded) + mirrored) / 2
        return mean[..., : -(-width // stride)]

    def _softmax(self, network: nn.Module, planes: Tensor) -> Tensor:
        with self.autocast:
            logits: Tensor = network(planes.permute(0, 2, 3, 1))
        return (logits.float() / self.temperature).softmax(1)


def distillation_loss(
    logits: Tensor, probabilities: Tensor, temperature: float, inside: Tensor
) -> Tensor:
    """Return the mean KL divergence of a student from its teachers, times temperature squared.

    The square keeps the gradient's size when the temperature changes. The mean is over the cells of
    all processes, as in `upsampled_loss`.

    Args:
        logits: (B, K, h, w) of the student, any float type; computed in float32.
        probabilities: (B, K, h, w) of the teachers, whose logits were divided by `temperature`.
        temperature: softens both; 1 leaves them as they are.
        inside: (B, h, w) bool, the cells that count.
    """
    log_q = (logits.float() / temperature).log_softmax(1)
    divergence = F.kl_div(log_q, probabilities, reduction="none").sum(1)  # (B, h, w)
    cells = summed(inside.sum()).clamp(min=1) / num_processes()
    return divergence.where(inside, 0).sum() / cells * temperature**2


def inside(images: Tensor, stride: int) -> Tensor:
    """Return which cells of crops show an image: not those in a row or column of one colour.

    Padding is such, in any jitter; so are borders that a camera or a scanner left, which teach
    nothing either. The corners of a crop that was turned are not found.

    Args:
        images: (B, H, W, C) uint8.
        stride: of the cells.

    Returns:
        (B, ceil(H / stride), ceil(W / stride)) bool.
    """
    rows = (images != images[:, :, :1]).flatten(2).any(2)  # (B, H)
    columns = (images != images[:, :1]).any(3).any(1)  # (B, W)
    rows, columns = (_centers(line, stride) for line in (rows, columns))
    return rows[:, :, None] & columns[:, None]


def _centers(lines: Tensor, stride: int) -> Tensor:
    """Take the value in the middle of each cell: (B, N) -> (B, ceil(N / stride))."""
    padded = F.pad(lines.byte()[:, None], (0, -lines.shape[1] % stride), mode="replicate")
    return padded[:, 0, stride // 2 :: stride].bool()


def _sampled(values: Tensor, axes: Sequence[tuple[float, float]], cells: tuple[int, int]) -> Tensor:
    """Sample (B, K, h, w) bilinearly, in float32, by two matrix products: (B, K, *cells).

    Args:
        values: on the grid of a teacher.
        axes: cells of `values` to one of the new grid, and where in them its first one lies.
        cells: of the new grid.
    """
    if all(axis == (1, 0) for axis in axes) and values.shape[2:] == cells:
        return values
    rows, columns = (
        _weights(count, *axis, have, values.device)
        for count, axis, have in zip(cells, axes, values.shape[2:], strict=True)
    )
    return rows @ values @ columns.T


@lru_cache  # so that nothing is copied to the device in a step
def _weights(count: int, step: float, first: float, have: int, device: torch.device) -> Tensor:
    """Return the weight of each of `have` cells in each of `count`, (count, have)."""
    center = (torch.arange(count, dtype=torch.float64) * step + first).clamp(0, have - 1)
    distance = (center[:, None] - torch.arange(have)).abs()
    return (1 - distance).clamp(min=0).to(device, torch.float32)
