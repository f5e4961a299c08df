"""Everything that a GPU is used for, beside its peers, in one run; the kernels' parity first.

    PYTHONPATH=src python benchmarks/gpu.py                    # under four minutes
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


def main():
    options = parse()
    start = time.perf_counter()
    rows = [*options.only, *["train"] * bool(options.minutes)]
    groups = [rows] if options.dry else [[row] for row in rows]
    result = {"commit": commit(), "environment": {}, "rows": []}
    result |= {"errors": [], "warnings": [], "seconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        following = [(group, Path(folder) / f"{'-'.join(group)}.json") for group in groups]
        child = begin(options, *following[0])
        for index, (group, path) in enumerate(following):
            # The next process loads its packages meanwhile, and then waits for its turn.
            coming = begin(options, *following[index + 1]) if group != groups[-1] else None
            merge(result, group, path, finish(child, limit(options, group)))
            child = coming
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
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for a row at most")
    parser.add_argument("--dry", action="store_true", help="tiny, in Triton's interpreter")
    return parser.parse_args()


def begin(options, rows, path):
    """Start the process of some rows; it waits for a line before it begins."""
    known = {"data": options.data, "run": options.run, "minutes": options.minutes}
    known |= {"dry": options.dry, "rows": rows}
    command = [sys.executable, str(HERE / "gpu_rows.py"), str(path), json.dumps(known, default=str)]
    source = str(HERE.parent / "src")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # a resume to the bit needs it before CUDA is used
    }
    if options.dry:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True)


def finish(child, seconds):
    """Let the process begin; return what went wrong, or nothing."""
    try:
        child.communicate("go\n", timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return f"did not end within {seconds:.0f} s"
    return f"ended with code {child.returncode}" if child.returncode else ""


def limit(options, rows):
    """Return the seconds that rows may take."""
    return len(rows) * options.limit + 60 * options.minutes * ("train" in rows)


def merge(result, rows, path, fault):
    """Add what the process of some rows wrote before it ended."""
    part = json.loads(path.read_text()) if path.exists() else {}
    result["environment"] = result["environment"] or part.get("environment", {})
    for name in ("rows", "errors", "warnings"):
        result[name] += part.get(name, [])
    result["seconds"] |= part.get("seconds", {})
    if fault:
        result["errors"].append({"place": " ".join(rows), "error": fault})


def commit():
    """Return the commit of the checkout, where git tells it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
