"""`atrous export`: a run to a certified bundle."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.data.dataset import Dataset

CALIBRATION_IMAGES = 48
"""Spread evenly over the split train."""


def export(
    run: Path,
    /,
    *,
    out: Path | None = None,
    int8: Annotated[bool, Parameter(negative=())] = False,
    budget: float = 1.0,
    data: str | None = None,
    root: Path | None = None,
    split: str = "val",
) -> int:
    """Turn a run into a bundle, one .onnx file, and certify it.

    The bundle labels the images of a split beside torch in float32. If the IoU of a class falls by
    more than the budget, no bundle is written and the exit code is 1.

    Args:
        run: Run folder, or a published name.
        out: Bundle to write; by default RUN.onnx in the current folder.
        int8: Quantise to 8 bits, calibrated on images of the split train: smaller and faster.
        budget: Most points of IoU (hundredths) that a class may lose.
        data: Data set to certify on, where it is not the run's own.
        root: Folder of its images, where it is not the run's own.
        split: Split to certify on.

    Returns:
        The exit code: 1 where the bundle is over the budget, 0 otherwise.
    """
    if budget < 0:
        raise InputError(f"--budget {budget:g}: points that may be lost, so 0 or more")
    out = out or Path(f"{run.resolve().name}.onnx")
    if out.suffix != ".onnx":
        raise InputError(f"{out}: the name of a bundle ends in .onnx; try --out {out}.onnx")
    # torch and onnx are not part of the core install
    import onnx

    from atrous.cli.progress import resolved, watched
    from atrous.cli.rasters import say_fourth_band
    from atrous.evaluation.score import check_same_classes
    from atrous.export.certificate import compare
    from atrous.export.graph import export_bundle, write_bundle
    from atrous.export.int8.quantize import quantize
    from atrous.infer.segmenter import load

    run = resolved(run)
    segmenter = load(run, runtime="torch")
    taxonomy = segmenter.metadata.taxonomy
    dataset = dataset_of_run(run, data, root)
    check_same_classes(taxonomy.classes, dataset.taxonomy.classes, str(run), dataset.name)
    samples = dataset.split(split)
    say_fourth_band(dataset)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "fp32.onnx"
        metadata = export_bundle(run, bundle)
        if int8:
            small = Path(folder) / "int8.onnx"
            with watched("layers measured") as progress:
                metadata, choice = quantize(bundle, small, _calibration_images(dataset), progress)
            print(choice)
            bundle = small
        with watched("images compared") as progress:
            now = load(bundle, runtime="onnxruntime").predict
            certificate = compare(
                segmenter.predict, now, samples, taxonomy.classes, budget, progress
            )
        if not certificate.changes:
            raise InputError(
                f"{dataset.name}: no mask of split {split} holds a class, so nothing certifies the "
                "bundle; give labels, another --split, or another set with --data"
            )
        if certificate.passed:
            scores = {"data": dataset.name, "split": split, **certificate.to_dict()}
            write_bundle(onnx.load(bundle), replace(metadata, scores=scores), out)
    if not certificate.passed:
        print(certificate)
        print(f"over the budget: {out} is not written. Train longer, or allow more with --budget")
        return 1
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    print(
        f"{out}  {size}  {metadata.precision}, any size, stride {metadata.stride} logits,"
        f" {taxonomy.num_classes} classes inside"
    )
    print(certificate)
    print(f"next: atrous segment PHOTO --model {out}")
    return 0


def dataset_of_run(run: Path, data: str | None, root: Path | None) -> "Dataset":
    """Open the data set that is given, or else the one that the run was trained on.

    Raises:
        InputError: it cannot be opened; of the run's own, the line says whose it is.
    """
    from atrous.data.dataset import Dataset
    from atrous.run import Run

    place = Run.read(run).data
    theirs = place.root or None if data is None else None
    chosen = data or place.data
    if not chosen:
        raise InputError(f"{run}: does not say what it was trained on; name it with --data")
    try:
        return Dataset.open(chosen, root or theirs)
    except InputError as error:
        if data is not None:
            raise
        raise InputError(f"{error} (the run's own data; another place: --data, --root)") from None


def _calibration_images(dataset: "Dataset") -> Iterator[NDArray[np.uint8]]:
    """Images of the split train, spread evenly; each is read when it is its turn."""
    samples = dataset.split("train")
    for index in np.unique(np.linspace(0, len(samples) - 1, CALIBRATION_IMAGES).astype(int)):
        yield samples[int(index)].image
