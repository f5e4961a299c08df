"""Teachers' outputs that are computed once, for a fixed set of crops of each image, and kept.

A crop with its own scale, place and flip is a view; the view does not depend on the step, so its
probabilities can be kept. The jitter is drawn anew each time, and the teachers do not see it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError
from atrous.files import replacing
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.progress import Track
from atrous.train.augment import augment
from atrous.train.crops import Crops
from atrous.train.teacher import Teachers

_FIELDS = (
    "teacher_flip", "teacher_scales", "teacher_temperature", "teacher_views", "crop_size",
    "center_crop", "rare_crops", "scale", "flip", "rotation", "seed", "precision",
)  # fmt: skip
"""Fields of a recipe that the kept outputs depend on."""


class TeacherViews:
    """A folder with one file for each image: an array (K, h, w) for each of its views."""

    def __init__(
        self,
        out: Path,
        crops: Crops,
        digests: Sequence[str],
        keys: str,
        stride: int,
        aligned: bool = False,
    ) -> None:
        """Name the folder, which is made by `compute`.

        Args:
            out: the run folder.
            crops: of the training; its recipe has the teacher's options.
            digests: of the teachers' weights.
            keys: digest of the samples' keys.
            stride: of the student's logits.
            aligned: their cells lie on pixels.
        """
        self.crops, self.recipe = crops, crops.recipe
        self.stride, self.aligned = stride, aligned
        options = {name: getattr(self.recipe, name) for name in _FIELDS}
        odds = list(crops.rarity) if self.recipe.rare_crops else []
        content = json.dumps([options, list(digests), keys, stride, odds, *[True] * aligned])
        name = sha256(content.encode()).hexdigest()[:16]
        self.folder = out / "teacher_views" / name

    def compute(self, teachers: Teachers, accelerator: Accelerator, track: Track) -> None:
        """Compute and write what is not there yet; each process takes its share of the images."""
        samples = self.crops.samples
        indices = range(accelerator.process_index, len(samples), accelerator.num_processes)
        missing = [index for index in indices if not self._file(index).exists()]

        def views(index: int) -> Tensor:  # (V, h, w, C)
            sample, numbers = samples[index], range(self.recipe.teacher_views)
            label = sample.label
            drawn = (self.crops.of_view(index, view, label.shape, label) for view in numbers)
            crops = [replace(crop, jitter=(), gamma=None) for crop in drawn]
            return torch.stack([augment(sample, c, self.recipe.crop_size)[0] for c in crops])

        if missing:
            cores = usable_cores()
            with track("images seen by teachers") as progress, ThreadPoolExecutor(cores) as readers:
                read = in_order(readers, views, missing, ahead=cores)
                for done, (index, images) in enumerate(zip(missing, read, strict=True), 1):
                    parts = torch.split(images, self.recipe.batch_size)
                    outputs = [
                        teachers(p.to(accelerator.device), self.stride, aligned=self.aligned).cpu()
                        for p in parts
                    ]
                    self._write(index, torch.cat(outputs).numpy())
                    progress(done, len(missing))
        accelerator.wait_for_everyone()

    def batches(self, positions: Iterable[range]) -> Iterator[Tensor]:
        """Yield what is kept of batches, given by positions: (B, K, h, w) uint8, in memory."""
        shown = (
            [(self.crops.index(position), self.crops.view(position)) for position in batch]
            for batch in positions
        )
        threads = min(4, usable_cores())
        with ThreadPoolExecutor(threads) as readers:
            yield from in_order(readers, self._batch, shown, ahead=2 * threads)

    def _batch(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        return torch.from_numpy(np.stack([self._read(*pair) for pair in pairs]))

    def _read(self, index: int, view: int) -> NDArray[np.uint8]:  # (K, h, w)
        path = self._file(index)
        try:
            with np.load(path) as arrays:
                return cast(NDArray[np.uint8], arrays[str(view)])
        except Exception as error:  # NumPy and zipfile raise many kinds on a damaged file
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{path}: damaged or gone ({reason}); delete it and resume the training"
            ) from None

    def _write(self, index: int, probabilities: NDArray[np.float32]) -> None:  # (V, K, h, w)
        arrays = {str(view): array for view, array in enumerate(packed(probabilities))}
        with replacing(self._file(index), flush=False) as temporary:
            np.savez_compressed(temporary, **arrays)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index}.npz"


def packed(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return probabilities in bytes: their roots, so that small ones are not lost."""
    return np.asarray(np.rint(np.sqrt(probabilities) * 255), np.uint8)


def unpacked(values: Tensor) -> Tensor:
    """Return the probabilities (B, K, h, w) of what `packed` returned, on the device."""
    squares = values.float().square()
    return squares / squares.sum(1, keepdim=True)
