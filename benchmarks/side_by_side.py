"""What the benchmarks share: contenders timed in turn, and the machine that they ran on."""

import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import atrous


def measure(contenders, rounds, warm_up=5, pause=0.0):
    """The median seconds of each call, run in turn, so that the machine's moods meet all alike.

    `pause`: seconds to wait after each, for threads that spin on after a call.
    """
    times = {name: [] for name in contenders}
    for count in range(-warm_up, rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if count >= 0:
                times[name].append(time.perf_counter() - start)
            time.sleep(pause)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def peak(call):
    """Bytes that a call holds at its highest above what was held before; not a number elsewhere."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    call()
    return _resident("VmHWM") - before


def _resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_environment(threads, *packages):
    # The source tree has a version even where it is not installed.
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{processor()}, {os.cpu_count()} cores, {threads} threads, {platform.system()}")
    print(f"Python {platform.python_version()}, atrous {atrous.__version__}, {versions}")


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
