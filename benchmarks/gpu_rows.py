"""One process of `gpu.py`: some of its rows. Its arguments are the file of results and options."""

import json
import os
import platform
import subprocess
import sys
import time
import warnings
from importlib import import_module

import torch
from gpu_bench import Bench

MODULES = {
    "parity-kernels": "gpu_parity",
    "parity-fp32": "gpu_parity",
    "parity-bf16": "gpu_parity",
    "parity-steps": "gpu_parity",
    "labels": "gpu_logits",
    "loss": "gpu_logits",
    "layers": "gpu_layers",
    "step": "gpu_steps",
    "photo": "gpu_photos",
    "loader": "gpu_training",
    "train": "gpu_training",
}
"""Where the function of each row is."""


def main():
    path, options = sys.argv[1], json.loads(sys.argv[2])
    bench = Bench(path, options)
    warnings.showwarning = bench.warn
    warnings.filterwarnings("error", message="no CUDA graph")  # of the runtimes
    functions = {}
    for name in options["rows"]:
        bench.row = name
        with bench.surviving():
            functions[name] = getattr(import_module(MODULES[name]), name.replace("-", "_"))
    if not sys.stdin.readline():  # waits for the row before; at the end of the file, all ended
        return
    if not options["dry"] and not torch.cuda.is_available():
        bench.row = " ".join(options["rows"])
        with bench.surviving():
            raise RuntimeError("torch finds no GPU here; --dry needs none")
        return
    with bench.surviving("environment"):
        bench.kept["environment"] = environment(bench)
    for name, function in functions.items():
        bench.row, start = name, time.perf_counter()
        with bench.surviving():
            function(bench)
        bench.free()
        bench.kept["seconds"][name] = round(time.perf_counter() - start, 1)
        bench.save()


def environment(bench):
    import torchvision
    import triton

    versions = {each.__name__: each.__version__ for each in (torch, torchvision, triton)}
    known = {"python": platform.python_version(), **versions, "cores": os.cpu_count()}
    known["torch_num_threads"] = torch.get_num_threads()
    if not bench.dry:
        properties = torch.cuda.get_device_properties(0)
        known |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
        known |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        known["driver"] = driver()
    return known


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


if __name__ == "__main__":
    main()
