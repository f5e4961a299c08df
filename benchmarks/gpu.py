"""Everything that a GPU is used for, beside its peers, in one run; the kernels' parity first.

    PYTHONPATH=src python benchmarks/gpu.py                    # all rows
    PYTHONPATH=src python benchmarks/gpu.py --only loss step   # some rows
    PYTHONPATH=src python benchmarks/gpu.py --minutes 10 --data CAMVID --run runs/camvid
    PYTHONPATH=src python benchmarks/gpu.py --dry              # tiny, on the processor

It needs the train extra, and no installed atrous and no data; segmentation_models_pytorch is the
peer of the training step where it is installed. Each row runs in a process of its own, so that one
that fails, hangs or breaks the device does not end the others: its error is printed and kept, and
the exit code is 1. Times are medians of calls in turn, by events of the device ("ms"), and of what
the host spends to start a call ("host_ms"). `--dry` runs each row at a tiny size in Triton's
interpreter: its numbers mean nothing. The last line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = {
    "parity": "the kernels against their references, graph against eager, resume",
    "labels": "labels from logits",
    "loss": "loss and gradient from logits",
    "layers": "depthwise convolution, norm with activation, resizing",
    "step": "the network alone and the training step, beside segmentation_models.pytorch",
    "photo": "photos to labels",
    "loader": "crops from the data path, and a training of 200 steps",
}
"""In the order in which they run."""
PARITY = ("parity-kernels", "parity-fp32", "parity-bf16", "parity-steps")
"""Run at the same time, since nothing is timed, and Triton compiles for most of it."""


def main():
    options = parse()
    start = time.perf_counter()
    result = {"commit": commit(), "environment": {}, "rows": []}
    result |= {"errors": [], "warnings": [], "seconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        waiting = [[]]
        for groups in [*stages(options), []]:
            # The next processes load their packages meanwhile, and then wait for their turn.
            waiting.append([Child(options, rows, Path(folder)) for rows in groups])
            running = waiting.pop(0)
            for child in running:
                child.go()
            for child in running:
                child.finish(result)
    result["seconds"]["all"] = round(time.perf_counter() - start, 1)
    for error in result["errors"]:
        print(f"error: {error['place']}: {error['error']}")
    text = json.dumps(result)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    return 1 if result["errors"] else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--minutes", type=float, default=0.0, help="of a training at the end")
    parser.add_argument("--data", type=Path, help="folder with dataset.toml; else it is generated")
    parser.add_argument("--run", type=Path, help="run folder for the photos; else random weights")
    parser.add_argument("--out", type=Path, help="a file for the JSON, too")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for a row at most")
    parser.add_argument("--dry", action="store_true", help="tiny, in Triton's interpreter")
    return parser.parse_args()


def stages(options):
    """Return what runs one after the other: the rows of processes that run at the same time."""
    rows = [*options.only, *["train"] * bool(options.minutes)]
    split = [PARITY if row == "parity" else (row,) for row in rows]
    if options.dry:
        return [[[part for parts in split for part in parts]]]
    return [[[part] for part in parts] for parts in split]


class Child:
    """A process of some rows; it waits for a line before it begins."""

    def __init__(self, options, rows, folder):
        self.rows, self.path = rows, folder / f"{rows[0]}.json"
        self.seconds = len(rows) * options.limit + 60 * options.minutes * ("train" in rows)
        known = {"data": options.data, "run": options.run, "minutes": options.minutes}
        text = json.dumps(known | {"dry": options.dry, "rows": rows}, default=str)
        source = str(HERE.parent / "src")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # a resume to the bit needs it from the start
        }
        if options.dry:
            environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(HERE / "gpu_rows.py"), str(self.path), text]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True)

    def go(self):
        self.end = time.monotonic() + self.seconds
        with suppress(BrokenPipeError):  # it has failed already
            self.process.stdin.write("go\n")
            self.process.stdin.close()

    def finish(self, result):
        """Add what the process wrote before it ended, and what went wrong."""
        fault = ""
        try:
            if code := self.process.wait(max(self.end - time.monotonic(), 0)):
                fault = f"ended with code {code}"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            fault = f"did not end within {self.seconds:.0f} s"
        part = json.loads(self.path.read_text()) if self.path.exists() else {}
        result["environment"] = result["environment"] or part.get("environment", {})
        for name in ("rows", "errors", "warnings"):
            result[name] += part.get(name, [])
        result["seconds"] |= part.get("seconds", {})
        if fault:
            result["errors"].append({"place": " ".join(self.rows), "error": fault})


def commit():
    """Return the commit of the checkout, where git tells it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
