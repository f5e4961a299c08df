"""`atrous export`: a run to a certified bundle."""

import math
from pathlib import Path

from atrous.cli.options import Flag
from atrous.cli.progress import resolved, say, track
from atrous.export import Certificate, export_run
from atrous.report.tables import Table
from atrous.text import amount, percent


def export(
    run: Path,
    /,
    *,
    out: Path | None = None,
    int8: Flag = False,
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
    out = out or Path(f"{run.resolve().name}.onnx")
    exported = export_run(
        resolved(run),
        out,
        int8=int8,
        budget=budget,
        data=data,
        root=root,
        split=split,
        track=track,
        notify=say,
    )
    certificate, metadata = exported.certificate, exported.metadata
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
        return 1
    print(f"next: atrous segment PHOTO --model {out}")
    return 0


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
