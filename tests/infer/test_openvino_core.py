"""One OpenVINO core a process: signals, threads and forks, each in a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

OPEN = """
import itertools, os, pathlib, signal, subprocess, sys, threading
import numpy
from atrous.infer.runtimes.open import open_runtime
image = numpy.full((1, 8, 8, 3), 255, numpy.uint8)
def open_one(): return open_runtime(pathlib.Path(sys.argv[1]), 1, "openvino")
"""


def run(code: str, bundle: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "faulthandler", "-c", OPEN + code, str(bundle)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_signals_arrive_after_runtimes_are_dropped_in_any_order(tiny_bundle: Path) -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background
ended = []
signal.signal(signal.SIGCHLD, lambda *_: ended.append(1))
for order in itertools.permutations(range(3)):
    runtimes = {name: open_one() for name in order}
    for name in sorted(order):
        assert runtimes.pop(name)(image).shape == (1, 4, 2, 2)
        before = len(ended)
        subprocess.run(["true"], check=True)
        assert len(ended) > before
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
signal.raise_signal(signal.SIGINT)
"""
    done = run(code, tiny_bundle)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "interrupted\n"), done.stderr
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_threads_that_open_the_first_runtimes_share_a_core(tiny_bundle: Path) -> None:
    code = """
from atrous.infer.runtimes.openvino import import_openvino
openvino = import_openvino()  # its telemetry would fork, for which a core is made
made, Core = [], openvino.Core
def counted():
    made.append(1)
    return Core()
openvino.Core = counted
together, shapes = threading.Barrier(4), []
def first():
    together.wait()
    shapes.append(open_one()(image).shape)
threads = [threading.Thread(target=first) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(made), set(shapes))
"""
    done = run(code, tiny_bundle)
    assert (done.returncode, done.stdout) == (0, "1 {(1, 4, 2, 2)}\n"), done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="forks")
def test_a_forked_child_computes(tiny_bundle: Path) -> None:
    code = """
import faulthandler
expected = open_one()(image)
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(120, exit=True)  # in place of a hang
    os._exit(0 if numpy.array_equal(open_one()(image), expected) else 1)
print(os.waitpid(child, 0)[1], numpy.array_equal(open_one()(image), expected))
"""
    done = run(code, tiny_bundle)
    assert (done.returncode, done.stdout) == (0, "0 True\n"), done.stderr
