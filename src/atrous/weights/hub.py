"""Model names to files: the one place where a name becomes a bundle or a run folder."""

from pathlib import Path

from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.progress import Notify, Track, unheard, untracked
from atrous.text import did_you_mean

__all__ = ["is_published", "resolve", "shown_name", "zoo_names", "zoo_path"]

_ZOO = Path(__file__).parent.parent / "zoo"


def resolve(
    model: str | Path,
    track: Track = untracked,
    notify: Notify = unheard,
) -> Path:
    """Return the bundle file or run folder that `model` names.

    A shipped name goes before a folder of that name (a data set's, say); `./NAME` is the folder. A
    published name ("torchvision/fcn_resnet50") is downloaded when it is first asked for.

    Args:
        model: a shipped or published name, or the path of a bundle or of a run folder.
        track: is called with the bytes of a download.
        notify: is called with a line at each interruption.
    """
    path, name = Path(model), str(model)
    if model in zoo_names():
        return zoo_path(name)
    if path.exists():
        return path
    if path.suffix == ".onnx":
        raise no_such_file(path)
    if path.parent == Path():
        return zoo_path(name)
    from atrous.weights.published import no_such_weights, published_run  # slow to import

    if not is_published(model):
        raise no_such_weights(name)
    return published_run(name, track, notify)


def shown_name(path: Path) -> str:
    """Return what a message calls a model: a shipped bundle by its name, others by their path."""
    return path.stem if path.parent == _ZOO else str(path)


def is_published(model: str | Path) -> bool:
    """Return whether `model` is a published name, and no path."""
    if "/" not in str(model) or Path(model).exists():
        return False
    from atrous.weights.published import PUBLISHED  # slow to import

    return str(model) in PUBLISHED


def zoo_names() -> tuple[str, ...]:
    """Return the names of the bundles that ship with the package, in alphabetical order."""
    return tuple(sorted(file.stem for file in _ZOO.glob("*.onnx")))


def zoo_path(name: str) -> Path:
    """Return the path of the shipped bundle `name`."""
    if name in zoo_names():
        return _ZOO / f"{name}.onnx"
    fix = did_you_mean(name, zoo_names(), f"Shipped are: {', '.join(zoo_names()) or 'none'}")
    raise InputError(f"{name}: no shipped model, bundle file or run folder. {fix}")
