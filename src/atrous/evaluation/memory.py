"""A process that labels one image and prints the most memory that it held: see `peak_memory`."""

import sys
from pathlib import Path

import numpy as np

from atrous.infer.segmenter import load


def main() -> None:
    """Label a black image: arguments are the model, the runtime, threads, height and width."""
    model, runtime, *numbers = sys.argv[1:]
    threads, height, width = map(int, numbers)
    segmenter = load(Path(model), threads, runtime)
    segmenter.predict(np.zeros((height, width, segmenter.metadata.channels), np.uint8))
    print(most_resident())


def most_resident() -> int:
    """Return the most bytes of memory that this process has held so far; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":  # where getrusage begins with what the parent process held
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
