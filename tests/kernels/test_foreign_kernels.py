"""The script that runs other systems' kernels in emulators, where these are not installed."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "foreign_kernels.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("foreign_kernels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("systems", "says"),
    [
        (["win32-x86_64"], "win32-x86_64 needs wine, which is not installed: wine and wine64"),
        ([], "linux-aarch64 needs qemu-aarch64-static, which is not installed: qemu-user-static"),
        (["darwin-aarch64"], "darwin-aarch64: no such system; there are linux-aarch64, win32"),
    ],
)
def test_what_is_missing_is_said_in_one_line(script, systems, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main(systems) == 2
    output = capsys.readouterr().out
    assert output.startswith(f"error: {says}")
    assert output.count("\n") == 1
