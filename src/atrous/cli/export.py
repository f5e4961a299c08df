"""`atrous export`: a run to a certified bundle."""

import io
import math
from pathlib import Path

from atrous.cli.options import Flag
from atrous.cli.progress import resolved_run, say, track
from atrous.errors import InputError
from atrous.export import Certificate, Exported, export_run
from atrous.export.push import check_push
from atrous.export.push import push as push_files
from atrous.infer.segmenter import load
from atrous.report.tables import Table
from atrous.text import amount, percent
from atrous.weights.repository import Repository

_LARGEST = (1280, 1280)
"""Sides of the card's picture."""


def export(
    run: str,
    /,
    *,
    out: Path | None = None,
    int8: Flag = False,
    budget: float = 1.0,
    data: str | None = None,
    root: Path | None = None,
    split: str = "val",
    push: str | None = None,
    photo: Path | None = None,
) -> int:
    """Turn a run into a bundle, one .onnx file, and certify it.

    The bundle labels the images of a split beside torch in float32. If the IoU of a class falls by
    more than the budget, no bundle is written and the exit code is 1.

    Args:
        run: Run folder, or a published name; with --push, also a bundle, which is pushed as it is.
        out: Bundle to write; by default RUN.onnx in the current folder.
        int8: Quantise to 8 bits, calibrated on images of the split train: smaller and faster.
        budget: Most points of IoU (hundredths) that a class may lose.
        data: Data set to certify on, where it is not the run's own.
        root: Folder of its images, where it is not the run's own.
        split: Split to certify on.
        push: Push the bundle to hf://OWNER/NAME, with a model card; HF_TOKEN must allow it.
        photo: Photo that the card shows under its labels, in place of the classes' colours; one
            that you may publish.

    Returns:
        The exit code: 1 where the bundle is over the budget, 0 otherwise.
    """
    repository = None if push is None else check_push(push)
    if photo is not None and repository is None:
        raise InputError("--photo: the picture of a model card; give --push, too")
    folder = resolved_run(run)
    if repository is not None and folder.is_file():
        _push(repository, folder, photo)
        return 0
    out = out or Path(f"{folder.resolve().name}.onnx")
    exported = export_run(
        folder,
        out,
        int8=int8,
        budget=budget,
        data=data,
        root=root,
        split=split,
        track=track,
        notify=say,
    )
    _print_exported(exported)
    if not exported.certificate.passed:
        return 1
    if repository is not None:
        _push(repository, out, photo)
    else:
        print(f"next: atrous segment PHOTO --model {out}")
    return 0


def _print_exported(exported: Exported) -> None:
    certificate, metadata, out = exported.certificate, exported.metadata, exported.path
    if exported.plan is not None:
        print(exported.plan)
    if certificate.passed:
        print(
            f"{out}  {out.stat().st_size / 1e6:.1f} MB  {metadata.precision}, any size,"
            f" stride {metadata.stride} logits, {metadata.taxonomy.num_classes} classes inside"
        )
    print(certificate_text(certificate))
    if not certificate.passed:
        print(f"over the budget: {out} is not written. Train longer, or allow more with --budget")


def _push(repository: Repository, bundle: Path, photo: Path | None) -> None:
    """Push a bundle, its card and the card's picture."""
    from atrous.report.model_card import model_card, swatches

    segmenter, content = load(bundle), io.BytesIO()
    if photo is None:
        picture, shown = swatches(segmenter.metadata.taxonomy), "the classes and their colours"
    else:
        picture, shown = segmenter(photo).overlay(), "a photo under its labels, with their shares"
    picture.thumbnail(_LARGEST)
    picture.save(content, "JPEG", quality=90)
    card = model_card(segmenter.metadata, repository.id, bundle.stat().st_size, shown)
    files: dict[str, Path | bytes] = {
        "model.onnx": bundle,
        "README.md": card.encode(),
        "example.jpg": content.getvalue(),
    }
    print(f"pushed {', '.join(files)} to {push_files(repository, files)}")
    print(f"next: atrous segment PHOTO --model {repository}")


def certificate_text(certificate: Certificate) -> str:
    """Return a summary of three lines, then a table of the classes, worst change first."""
    before, after, changes = certificate.before, certificate.after, certificate.changes
    worst, change = next(iter(changes.items()), ("no class", math.nan))
    lines = [
        f"certificate on {amount(certificate.num_images, 'image')}, protocol {after.protocol}:",
        f"  labels equal to torch fp32 on {100 * certificate.agreement:.1f} %",
        f"  mIoU {100 * before.miou:.1f} -> {100 * after.miou:.1f}; worst class {worst}"
        f" {change:+.1f} (budget {certificate.budget:g}):"
        f" {'pass' if certificate.passed else 'FAIL'}",
    ]
    indices = [certificate.classes.index(name) for name in changes]
    table = Table(
        names=list(changes),
        columns={
            "torch": [percent(before.iou[k]) for k in indices],
            "now": [percent(after.iou[k]) for k in indices],
            "change": [f"{change:+.1f}" for change in changes.values()],
        },
    )
    return "\n".join([*lines, table.to_text()])
