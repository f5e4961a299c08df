"""New processes, from their start to their end: import, --help, and a photo to its files.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --model mine.onnx --photo street.jpg

OpenVINO is started with its cache of compiled networks empty, and then again with it full. The last
line is JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from runtimes import read_photo
from side_by_side import print_environment

from atrous.kernels import usable_cores

ATROUS = "import sys; from atrous.cli import main; sys.exit(main())"


def main():
    options = parse()
    print_environment(usable_cores(), "onnxruntime", "openvino", "numpy", "pillow")
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.fromarray(read_photo(options.photo, (360, 480))).save(photo, quality=95)
        segment = [ATROUS, "segment", str(photo), "--model", options.model, "--out", folder]
        seconds = {
            "python -c pass": run(folder, options.rounds, "pass"),
            "import atrous": run(folder, options.rounds, "import atrous"),
            "atrous --help": run(folder, options.rounds, ATROUS, "--help"),
            "segment, onnxruntime": run(
                folder, options.rounds, *segment, "--runtime", "onnxruntime"
            ),
        }
        for runtime in ("openvino", "openvino:bf16"):
            command = [*segment, "--runtime", runtime]
            seconds[f"segment, {runtime}, the first time"] = run(folder, 1, *command)
            seconds[f"segment, {runtime}, later"] = run(folder, options.rounds, *command)
    for name, t in seconds.items():
        print(f"  {name:40} {t:6.2f} s")
    print(json.dumps({name: round(t, 3) for name, t in seconds.items()}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="camvid", help="shipped name or bundle")
    parser.add_argument("--photo", help="image; by default noise")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def run(folder, rounds, *arguments):
    """The median seconds of `python -c ARGUMENTS`, with a cache folder of its own."""
    environment = os.environ | {"XDG_CACHE_HOME": folder, "LOCALAPPDATA": folder}
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", *arguments], check=True, capture_output=True, env=environment
        )
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
