"""The command line as a whole: commands, messages and exit codes."""

import errno
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous import cli
from atrous.cli import COMMANDS, main
from atrous.errors import InputError


def run_instead(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `atrous train` raise `error`."""

    def train() -> None:
        raise error

    module = types.ModuleType("atrous.cli.train")
    module.train = train
    monkeypatch.setitem(sys.modules, "atrous.cli.train", module)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_in_the_module_of_its_name(name: str) -> None:
    assert callable(getattr(import_module(f"atrous.cli.{name}"), name))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert f"Usage: atrous {name}" in page
    assert not re.search(r"default: (False|\(\))|--empty-", page)


def test_help_lists_the_commands_without_importing_them() -> None:
    code = (
        "import sys; from atrous.cli import main; main(['--help']); "
        "assert not [m for m in sys.modules if m.startswith('atrous.cli.')]"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == atrous.__version__


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atrous", "segmnt"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: unknown command segmnt. Did you mean segment?\n"


@pytest.mark.parametrize(
    ("called", "message"),
    [
        ("xyz", "There are: segment, evaluate"),
        ("street.jpg", "Did you mean atrous segment street.jpg?"),
    ],
)
def test_unknown_command(
    called: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "street.jpg").touch()
    assert main([called]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("x.png: no such file"), "error: x.png: no such file"),
        (InputError("two\nlines"), "error: two lines"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device; free"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: /x: Permission denied"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            'error: atrous train needs torch, which is not installed: pip install "atrous[train]"',
        ),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_instead(monkeypatch, error)
    assert main(["train"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_a_missing_package_behind_the_lazy_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a core install: the command's module itself needs what is not there."""
    for module in ("atrous.cli.train", "torch"):
        monkeypatch.setitem(sys.modules, module, None)  # what an import then raises is the same
    with pytest.raises(ImportError):
        main(["train"])
    monkeypatch.setattr(cli, "_EXTRAS", {"data": "atrous"})
    assert main(["train"]) == 2
    assert (
        'needs atrous, which is not installed: pip install "atrous[data]"'
        in capsys.readouterr().err
    )


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("ours"), ModuleNotFoundError("ours", name="atrous.nowhere")):
        run_instead(monkeypatch, error)
        with pytest.raises(type(error), match="ours"):
            main(["train"])


def test_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_instead(monkeypatch, KeyboardInterrupt())
    assert main(["train"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error() -> None:
    code = "import sys; from atrous.cli import main; sys.exit(main(['models']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_lines_of_pillow_and_its_libraries_stay_off_standard_error(tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "x" * 50
    for name, options in (("lzw", {"compression": "tiff_lzw"}), ("exif", {"exif": exif})):
        photo.save(tmp_path / f"{name}.tif", **options)
    lzw, tags = (bytearray((tmp_path / f"{name}.tif").read_bytes()) for name in ("lzw", "exif"))
    lzw[100:200] = bytes(range(100, 200))
    place = tags.index(b"x" * 50)
    samples = tags.index((277).to_bytes(2, "little")) + 8
    (tmp_path / "lzw.tif").write_bytes(lzw)
    (tmp_path / "samples.tif").write_bytes(tags[:samples] + b"\x07" + tags[samples + 1 :])
    (tmp_path / "exif.tif").write_bytes(tags[:place])
    code = (
        "import sys; from pathlib import Path; from atrous.cli import main; main(['models'])\n"
        "from atrous.files import InputError; from atrous.images.photos import read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n"
        "    except InputError: print('refused', path.stem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "refused lzw" in done.stdout and "refused samples" in done.stdout
