"""What each runtime loads of each model: runs are exported for the runtimes of bundles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from atrous.evaluation.timing import Place
from atrous.infer.runtimes.open import OF_BUNDLES, runtimes_of
from atrous.progress import Track


def files_by_runtime(
    models: Mapping[str, Path], runtimes: Sequence[str], folder: Path, track: Track
) -> dict[Place, Path]:
    """What each runtime loads of each model; runs are exported into `folder`."""
    files: dict[Place, Path] = {}
    with track("models exported") as progress:
        for done, (name, path) in enumerate(models.items(), start=1):
            forms = [path]
            if path.is_dir() and set(runtimes) & set(OF_BUNDLES):
                from atrous.export.graph import export_bundle

                # OpenVINO keeps what it compiled by the file's name: one name, one such file
                forms.append(folder / str(done) / "compared.onnx")
                export_bundle(path, forms[-1])
            for form in forms:
                taken = [runtime for runtime in runtimes if runtime in runtimes_of(form)]
                files |= {Place(name, runtime): form for runtime in taken}
            progress(done, len(models))
    return files
