"""Each command prints and writes what was recorded, word by word: outputs/NAME.txt.

After a change of words that was meant, record anew, look at the difference, and commit it alone:

    python -m pytest tests/recorded --record             # all; `-k segment` for some
    git diff tests/recorded/outputs

`calls.py` lists the calls, each of which runs in a folder of its own; `transcript.py` says what is
masked, and how far a number may be from the recorded one.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from calls import CALLS, Call, archive, write_run
from file_server import file_server
from transcript import differences, masked, seen

from atrous.cli import main

OUTPUTS = Path(__file__).parent / "outputs"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose weights are the same on every machine."""
    return write_run(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; a terminal of 80 columns without colours, and a cache of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    return folder


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@pytest.mark.filterwarnings("ignore")
def test_the_output_is_the_recorded_one(
    call: Call,
    here: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if call.needs_run:
        (here / "run").symlink_to(request.getfixturevalue("run"))
    for prepare in call.prepare:
        prepare(here)
    for package in call.without:
        monkeypatch.setitem(sys.modules, package, None)  # its import fails
    before = _hashes(here)
    capsys.readouterr()
    with file_server() as server:
        server.files["/set.zip"] = archive()
        arguments = [part.replace("SERVER", server.url) for part in call.arguments]
        code, out, err = _process(arguments) if call.process else _call(arguments, capsys)
    after = _hashes(here)
    parts = [f"$ atrous {' '.join(call.arguments)}\nexit code {code}\n"]
    parts += [f"--- standard output\n{out}", f"--- standard error\n{err}"]
    parts += [f"--- gone: {path}\n" for path in sorted(before.keys() - after.keys())]
    for path in sorted(after):
        if before.get(path) != after[path]:
            parts.append(
                f"--- written: {path}\n{seen(here / path, call.by_network, call.measured)}"
            )
    now = "".join(part if part.endswith("\n") else f"{part}<no end of line>\n" for part in parts)
    now = masked(now, here, call.by_network, call.measured)
    file = OUTPUTS / f"{call.name}.txt"
    if request.config.getoption("--record"):
        file.write_text(now, "utf-8")
    assert file.exists(), f"{file.name}: not recorded yet; see the head of {Path(__file__).name}"
    found = list(differences(file.read_text("utf-8"), now, call.by_network))
    assert not found, f"{file.name}: not as recorded\n" + "\n".join(found[:20])


def test_every_recording_has_its_call() -> None:
    names = [call.name for call in CALLS]
    assert len(set(names)) == len(names)
    assert {file.stem for file in OUTPUTS.iterdir()} == set(names)


def _call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(arguments)
    return code, *capsys.readouterr()


def _process(arguments: list[str]) -> tuple[int, str, str]:
    environment = os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
    command = [sys.executable, "-m", "atrous", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def _hashes(folder: Path) -> dict[str, str]:
    """Of each file its hash, by its path; those behind links are not of this call."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
