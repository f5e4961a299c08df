"""`atrous convert`: weights of other projects, from a file or as published, to a run folder."""

from pathlib import Path

from atrous.cli.progress import resolved_run, say, track_bytes
from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.run import RunData, check_free, copy_run, load_run
from atrous.text import printable
from atrous.weights.hub import is_published
from atrous.weights.published import PUBLISHED, no_such_weights
from atrous.weights.repository import is_address


def convert(
    checkpoint: str,
    /,
    *,
    out: Path,
    data: str | None = None,
    layout: str | None = None,
    output_stride: int | None = None,
    backbone: str | None = None,
) -> None:
    """Turn the weights of another project into a run folder, which all commands take.

    Needs pip install "atrous[train]". Nothing in a file is run, and no tensor is left out silently.

    Args:
        checkpoint: A file (.pth, .pt, .ckpt, .safetensors, .tflite), a folder of save_pretrained,
            a published name (atrous models lists them), which is downloaded once, or
            hf://OWNER/NAME, with weights of segmentation_models.pytorch.
        out: The run folder.
        data: What a file's classes are: a built-in set, a folder with a dataset.toml, or such a
            file.
        layout: Whose file it is: torchvision, smp, kazuto1011, vainf, mmseg or tensorflow;
            found by the tensors' names if left out.
        output_stride: What a file's network was trained at, if not at its project's usual one.
        backbone: timm's name of a file's backbone, where several have the same tensors.
    """
    check_free(out, "give another --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, where a run is a folder; give another --out")
    if is_published(checkpoint):
        if data or layout or output_stride or backbone:
            raise InputError(f"{checkpoint}: a published name; leave out all options but --out")
        data = PUBLISHED[checkpoint].data
        copy_run(resolved_run(checkpoint), out)
    elif not is_address(checkpoint) and not Path(checkpoint).exists():
        raise no_such_weights(checkpoint)
    elif data is None:
        raise InputError(f"{checkpoint}: say what its classes are with --data SET|FOLDER")
    else:
        dataset = Dataset.open(data, None if Path(data).exists() else Path())
        source, path = checkpoint, Path(checkpoint)
        if is_address(checkpoint):
            from atrous.export.remote import fetch_weights

            path = fetch_weights(checkpoint, track_bytes, say)
        else:
            source = path.absolute().name
        from atrous.weights.convert import import_weights, write_run

        imported = import_weights(path, layout, output_stride, backbone)
        about = RunData(name=dataset.name, licence=dataset.licence, data=data, source=source)
        write_run(imported, dataset.taxonomy, out, about)
    _print_run(out)
    print(f"next: atrous segment PHOTO --model {out}")
    root = "" if Path(data).exists() else " --root FOLDER"
    print(f"      atrous evaluate {out} {data}{root}")


def _print_run(folder: Path) -> None:
    """Load the run that was written, and describe it."""
    from atrous.weights.importers.checkpoint import few

    network, taxonomy, run = load_run(folder)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"found    {run.model['name']} on {run.model['backbone']}, layout of {run.layout}")
    print(f"         output stride {run.model['output_stride']}, {parameters:,} parameters")
    report = run.imported or None  # older runs have none
    if report:
        lines = [f"took     {report.taken}"]
        lines += [f"left     {few(report.left_over)}"] if report.left_over else []
        lines += [f"left     what {key} holds" for key in report.others]
        for line in lines:  # names in untrusted files may move the cursor
            print(printable(line))
    mean, std = (
        " ".join(f"{x:.3f}" for x in values)
        for values in (run.normalization.mean, run.normalization.std)
    )
    print(f"input    RGB in 0..1, less {mean}, over {std}")
    print(f"classes  {taxonomy.num_classes}, those of {run.data.name}")
    if report and report.threshold:
        background, other = taxonomy.classes
        rule = f"{other} where its sigmoid is over {report.threshold}, or {background}"
        print(f"         one output: {rule}")
    if score := run.data.published:
        print(f"score    mIoU {100 * score.miou:.1f}, published ({score.protocol})")
    print(f"wrote    {folder}")
