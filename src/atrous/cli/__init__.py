"""The command line: one typed function per file, looked up here and imported when it is called.

Bad input ends in one line on standard error and exit code 2; a bug keeps its traceback.
"""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter

from atrous import __version__
from atrous.errors import InputError
from atrous.text import did_you_mean, one_line, printable

COMMANDS = {
    "segment": "Label photos or folders: labels, overlay and coverage.",
    "evaluate": "Score a model on a data set, per class, by a named protocol.",
    "compare": "Compare models or recipes on one data set.",
    "train": "Train a model with a recipe, or on a data set of your own.",
    "export": "Turn a run into a bundle, one .onnx file, and certify it.",
    "convert": "Turn weights of other projects into a run folder.",
    "data": "Look at data sets, fetch, check or pack them, or make one.",
    "models": "List the models that are shipped, published, or can be built.",
    "bench": "Measure this machine's speed with a model: each runtime, each step.",
}
"""Each command is the function of its name in the module of its name."""

_EXTRAS = {
    "train": "accelerate onnx onnxscript safetensors tensorboardX tflite timm torch torchvision",
    "data": "pycocotools yaml",
    "openvino": "openvino",
    "video": "av",
    "geo": "rasterio",
    "heif": "pillow_heif",
    "polygons": "shapely",
    "hub": "huggingface_hub",
}
"""Modules that a plain install lacks, by the extra that brings them."""


def build_app(called: str | None = None) -> App:
    """Return the command line.

    Args:
        called: the command that runs; its docstring becomes its help. All other commands show their
            line of `COMMANDS`, so that listing them imports none of them.
    """
    app = App(
        name="atrous",
        help="Photos in, dense labels out.",
        version=__version__,
        help_format="markdown",  # wraps paragraphs to the terminal; plain text does not
        default_parameter=Parameter(
            show_default=lambda default: default or None,
            consume_multiple=True,  # --scales 1 1.5 rather than --scales 1 --scales 1.5
            negative_iterable=(),
        ),
        suppress_keyboard_interrupt=False,
    )
    for name, line in COMMANDS.items():
        app.command(f"atrous.cli.{name}:{name}", name=name, help=None if name == called else line)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, by default the process's; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    called = arguments[0] if arguments else None
    warnings.filterwarnings("ignore", module="PIL")  # about metadata that is not used
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # Pillow raises errors as well
    try:
        _check_command(called)
        result = build_app(called)(
            arguments,
            exit_on_error=False,
            print_error=False,
            verbose=False,
            result_action="return_value",
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's exit
        return 1
    except (InputError, CycloptsError, OSError, ImportError) as error:
        line = _explain(error, called)  # names of files may move the cursor
        print(f"error: {printable(line)}", file=sys.stderr)
        return 2


def _check_command(called: str | None) -> None:
    """Refuse an unknown command, without importing all of them as cyclopts would."""
    if called is None or called.startswith("-") or called in COMMANDS:
        return
    photo = f"Did you mean atrous segment {called}?" if Path(called).exists() else ""
    raise InputError(f"unknown command {called}. {did_you_mean(called, COMMANDS, photo)}")


def _explain(error: Exception, called: str | None) -> str:
    """Return one line about what the user can fix; raise anything else again."""
    if isinstance(error, CycloptsError):
        return _usage(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            reason += "; free some space, or write elsewhere"
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, ImportError):
        missing = _missing_module(error)
        extra = next(
            (name for name, modules in _EXTRAS.items() if missing in modules.split()), None
        )
        if extra is None:
            raise error
        fix = f'pip install "atrous[{extra}]"'
        return f"atrous {called} needs {missing}, which is not installed: {fix}"
    return one_line(error)


def _usage(error: CycloptsError) -> str:
    """Return the message in our style: "unknown option --crop-sise. Did you mean --crop-size?"."""
    text = one_line(error)
    for theirs, ours in (
        ("Unknown option: ", "unknown option "),
        ("Unused Tokens: ", "not expected: "),
        (" parameter ", ": "),
        ('"', ""),
    ):
        text = text.replace(theirs, ours)
    return text[:1].lower() + text[1:]


def _missing_module(error: BaseException | None) -> str:
    """Return the top-level module whose absence caused `error`; empty if another cause did."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return ""
