"""Model names to files: the one place where a name becomes a bundle or a run folder.

Nothing is fetched here: `atrous.export.fetch` does, and keeps what it fetched in the user's cache:

    weights/PROJECT/MODEL.onnx      the bundle of a published checkpoint
    weights/PROJECT/MODEL/          its run folder, for what needs weights
    hub/OWNER/NAME/COMMIT/          the same of a repository of the hub: NAME.onnx, NAME/
"""

from pathlib import Path

from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.run import has_run
from atrous.text import did_you_mean
from atrous.weights.cache import cache_folder
from atrous.weights.repository import Repository, is_address

__all__ = [
    "is_published",
    "is_remote",
    "kept_bundle",
    "resolve",
    "run_beside",
    "shown_name",
    "zoo_names",
    "zoo_path",
]

_ZOO = Path(__file__).parent.parent / "zoo"


def resolve(model: str | Path) -> Path:
    """Return the bundle file or run folder that `model` names.

    A shipped name goes before a folder of that name (a data set's, say); `./NAME` is the folder.

    Args:
        model: the name of a shipped model; the path of a bundle or of a run folder; or what was
            fetched before: a published name ("torchvision/fcn_resnet50") or an address of the hub
            ("hf://OWNER/NAME@REVISION").
    """
    path, name = Path(model), str(model)
    if is_remote(model):
        bundle = kept_bundle(name)
        if bundle is not None and bundle.is_file():
            return bundle
        raise InputError(
            f"{name}: not fetched yet; atrous segment PHOTO --model {name} does, in Python "
            f"atrous.export.fetch({name!r})"
        )
    if model in zoo_names():
        return zoo_path(name)
    if path.exists():
        return path
    if path.suffix == ".onnx":
        raise no_such_file(path)
    if path.parent == Path():
        return zoo_path(name)
    from atrous.weights.published import no_such_weights  # slow to import

    raise no_such_weights(name)


def shown_name(path: Path) -> str:
    """Return what a message calls a model: a shipped bundle by its name, others by their path."""
    return path.stem if path.parent == _ZOO else str(path)


def is_remote(model: str | Path) -> bool:
    """Return whether `model` is a published name or an address of the hub, and no path."""
    return is_address(model) or is_published(model)


def is_published(model: str | Path) -> bool:
    """Return whether `model` is a published name, and no path."""
    if "/" not in str(model) or is_address(model) or Path(model).exists():
        return False
    from atrous.weights.published import PUBLISHED  # slow to import

    return str(model) in PUBLISHED


def kept_bundle(name: str) -> Path | None:
    """Return where the bundle of a published name or an address is kept, once it is fetched.

    None for a repository of which no revision of that name was fetched.
    """
    try:
        if is_address(name):
            return Repository.parse(name).kept_bundle()
        return cache_folder() / "weights" / f"{name}.onnx"
    except RuntimeError:
        raise InputError(f"{name}: no home to keep it in; set XDG_CACHE_HOME to a folder") from None


def run_beside(bundle: Path) -> Path | None:
    """Return the run folder of a fetched bundle; None for one that was a bundle from the start."""
    run = bundle.with_suffix("")
    return run if has_run(run) else None


def zoo_names() -> tuple[str, ...]:
    """Return the names of the bundles that ship with the package, in alphabetical order."""
    return tuple(sorted(file.stem for file in _ZOO.glob("*.onnx")))


def zoo_path(name: str) -> Path:
    """Return the path of the shipped bundle `name`."""
    if name in zoo_names():
        return _ZOO / f"{name}.onnx"
    fix = did_you_mean(name, zoo_names(), f"Shipped are: {', '.join(zoo_names()) or 'none'}")
    raise InputError(f"{name}: no shipped model, bundle file or run folder. {fix}")
