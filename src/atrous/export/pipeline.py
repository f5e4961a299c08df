"""A run to a bundle: trace, quantise, compare with torch, and write the file once.

torch and onnx are imported when a run is exported, since `bundles_by_runtime` takes bundles where
they are not installed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.evaluation.score import Predict, check_same_classes
from atrous.evaluation.timing import Place
from atrous.export.certificate import Certificate, certify
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.base import Runtime
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.infer.runtimes.open import OF_BUNDLES, runtimes_of
from atrous.infer.runtimes.torch import TorchRuntime
from atrous.infer.segmenter import Segmenter
from atrous.infer.tiling import TiledRuntime
from atrous.progress import Notify, Track, unheard, untracked
from atrous.run import Run

if TYPE_CHECKING:
    from onnx import ModelProto

    from atrous.export.int8.precision_plan import PrecisionPlan

__all__ = ["Exported", "bundles_by_runtime", "dataset_of_run", "export_bundle", "export_run"]

_CALIBRATION_IMAGES = 48
"""Images that int8 is calibrated on, evenly spaced in the split train."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """A bundle and its certificate; the file is written only if the certificate passed."""

    path: Path
    metadata: BundleMetadata
    certificate: Certificate
    plan: "PrecisionPlan | None"
    """The layers of an int8 bundle that stay in float; None for a float bundle."""


def export_run(
    run: Path | str,
    out: Path | str,
    *,
    int8: bool = False,
    budget: float = 1.0,
    data: str | None = None,
    root: Path | str | None = None,
    split: str = "val",
    track: Track = untracked,
    notify: Notify = unheard,
) -> Exported:
    """Export the best weights of a run as a bundle, and certify it beside torch in float32.

    Args:
        run: run folder.
        out: bundle to write, *.onnx; it is not written if the certificate fails.
        int8: quantise to 8 bits, calibrated on images of the split train.
        budget: points of IoU (hundredths) that a class may lose, 0 or more.
        data: data set to certify on; by default the run's own.
        root: folder of its images; by default the run's own.
        split: split to certify on.
        track: shows the progress of each step.
        notify: called with a line about how the images are read, if there is one.
    """
    out = Path(out)
    if budget < 0:
        raise InputError(f"budget {budget:g}: points that a class may lose; give 0 or more")
    if out.suffix != ".onnx":
        raise InputError(f"{out}: the name of a bundle ends in .onnx; try {out}.onnx")
    reference, dataset = TorchRuntime(run), dataset_of_run(Path(run), data, root)
    metadata, plan = _without_paths(reference.metadata), None
    classes = metadata.taxonomy.classes
    check_same_classes(classes, dataset.taxonomy.classes, str(run), dataset.name)
    samples = dataset.split(split)
    if line := dataset.fourth_band[1]:
        notify(line)
    from atrous.export.graph import to_onnx, write_bundle

    model = to_onnx(reference.network)
    if int8:
        from atrous.export.int8.quantize import quantize

        metadata = replace(metadata, precision="int8")
        with track("layers measured") as progress:
            model, plan = quantize(model, _calibration_images(dataset), progress)
    with track("images compared") as progress:
        predict = (_predict(reference), _predict(_open(model, metadata, out)))
        certificate = certify(*predict, samples, classes, budget, progress)
    if not certificate.changes:
        raise InputError(
            f"{dataset.name}: no mask of split {split} holds a class, so nothing certifies the "
            "bundle; give labels, another split or other data"
        )
    if certificate.passed:
        scores = {"data": dataset.name, "split": split, **certificate.to_dict()}
        metadata = replace(metadata, scores=scores)
        write_bundle(model, metadata, out)
    return Exported(path=out, metadata=metadata, certificate=certificate, plan=plan)


def export_bundle(run: Path | str, out: Path | str) -> BundleMetadata:
    """Write the best weights of a run as a float bundle, without a certificate."""
    reference = TorchRuntime(run)
    from atrous.export.graph import to_onnx, write_bundle

    metadata = _without_paths(reference.metadata)
    write_bundle(to_onnx(reference.network), metadata, out)
    return metadata


def bundles_by_runtime(
    models: Mapping[str, Path], runtimes: Sequence[str], folder: Path, track: Track = untracked
) -> dict[Place, Path]:
    """Return the file that each runtime loads of each model.

    Args:
        models: name -> bundle, or run folder, which is exported for the runtimes of bundles.
        runtimes: names, see `atrous.infer.runtimes.open`.
        folder: receives the exported bundles.
        track: shows the progress.
    """
    files: dict[Place, Path] = {}
    with track("models exported") as progress:
        for done, (name, path) in enumerate(models.items(), start=1):
            forms = [path]
            if path.is_dir() and set(runtimes) & set(OF_BUNDLES):
                # OpenVINO caches compiled networks by the file's name; one name keeps one entry
                forms.append(folder / str(done) / "compared.onnx")
                export_bundle(path, forms[-1])
            for form in forms:
                taken = [runtime for runtime in runtimes if runtime in runtimes_of(form)]
                files |= {Place(name, runtime): form for runtime in taken}
            progress(done, len(models))
    return files


def dataset_of_run(run: Path, data: str | None, root: Path | str | None) -> Dataset:
    """Open the data set `data`, or by default the one that the run was trained on."""
    recorded = Run.read(run).data
    chosen = data or recorded.data
    if not chosen:
        raise InputError(f"{run}: does not say what it was trained on; name it with --data")
    try:
        return Dataset.open(chosen, root or (recorded.root or None if data is None else None))
    except InputError as error:
        if data is not None:
            raise
        raise InputError(f"{error} (the run's own data; another place: --data, --root)") from None


def _without_paths(metadata: BundleMetadata) -> BundleMetadata:
    """Remove paths from the recipe: they do not exist on other machines."""
    paths = ("init", "backbone_weights", "teacher", "unlabelled")
    recipe = {key: value for key, value in metadata.recipe.items() if key not in paths}
    return replace(metadata, recipe=recipe)


def _open(model: "ModelProto", metadata: BundleMetadata, path: Path) -> OnnxRuntime:
    """Open a bundle that is not written yet."""
    from atrous.export.graph import set_metadata

    set_metadata(model, metadata)
    return OnnxRuntime(path, content=model.SerializeToString())


def _predict(runtime: Runtime) -> Predict:
    return Segmenter(TiledRuntime(runtime)).predict


def _calibration_images(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Yield evenly spaced images of the split train; each is read when it is needed."""
    samples = dataset.split("train", masks=False)
    for index in np.unique(np.linspace(0, len(samples) - 1, _CALIBRATION_IMAGES).astype(int)):
        yield samples[int(index)].image
