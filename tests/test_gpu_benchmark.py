"""benchmarks/gpu.py at tiny sizes, in Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def run(*arguments: object) -> tuple[int, str, dict[str, Any]]:
    """Return the exit code, what was printed, and the JSON of its last line."""
    command = [sys.executable, str(SCRIPT), "--dry", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, done.stdout + done.stderr, json.loads(done.stdout.splitlines()[-1])


def test_every_row(tmp_path: Path) -> None:
    code, printed, result = run("--minutes", 0.02, "--out", tmp_path / "result.json")
    assert code == 0 and not result["errors"], printed
    rows = {"labels", "loss", "layers", "step", "photo", "loader", "train"}
    rows |= {f"parity-{part}" for part in ("kernels", "fp32", "bf16", "steps")}
    assert {row["row"] for row in result["rows"]} == rows == result["seconds"].keys() - {"all"}
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_a_row_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    code, printed, result = run("--only", "loader", "labels", "--data", tmp_path / "nothing")
    assert code == 1 and "error: loader: InputError: " in printed
    assert {row["row"] for row in result["rows"]} == {"labels"}
    assert [error["place"] for error in result["errors"]] == ["loader"]
