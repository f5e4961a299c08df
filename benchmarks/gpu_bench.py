"""The timing of `gpu.py`: contenders in turn on the device, and results that outlive an error."""

import gc
import json
import math
import statistics
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

WARM_UP = 5
"""Calls before the first timed one; a training captures its graph in the fourth."""
BURST = 0.03
"""Seconds of calls between two events, so that the device does not wait for single launches."""


class AbsentError(Exception):
    """A peer that is not there; no error."""


class Bench:
    """Runs the cases of rows; each result is in the file at once, errors included."""

    def __init__(self, path, options):
        self.path, self.options, self.dry = Path(path), options, options["dry"]
        self.device = torch.device("cpu" if self.dry else "cuda")
        self.row, self.kept = "", {"rows": [], "errors": [], "warnings": [], "seconds": {}}

    @cached_property
    def generator(self):
        """Of the random numbers on the device, which is not touched before."""
        return torch.Generator(self.device).manual_seed(0)

    @contextmanager
    def surviving(self, case=""):
        """Keep an error, and go on after the block."""
        try:
            yield
        except AbsentError as reason:
            self.report(case, left_out=str(reason))
        except Exception as error:
            message = (str(error).strip().splitlines() or [""])[0]
            self.failed(case, f"{type(error).__name__}: {message}", traceback.format_exc(limit=-4))

    def failed(self, case, error, trace=""):
        """Print and keep an error."""
        place = f"{self.row}: {case}" if case else self.row
        print(f"{place}: {error}", flush=True)
        self.kept["errors"].append({"place": place, "error": error, "trace": trace[-1500:]})
        self.save()

    def notice(self, line):
        """Take a line of a training; that it goes on without a graph is an error here."""
        if line.startswith("no CUDA graph"):
            self.failed("", line)
        else:
            print(line, flush=True)

    def compare(self, case, builders, *, images=0, memory=(), **facts):
        """Time what each builder returns, and report it.

        Args:
            case: its name.
            builders: functions that return a call, by name; the first is ours.
            images: of one call, for rates.
            memory: names of those whose peak above what is held before a call is reported; a
                replayed graph has its memory before.
            facts: further values of the result.
        """
        calls = self.built(case, builders)
        times = self.in_turn(calls)
        result = {"ms": {name: short(ms) for name, (ms, _) in times.items()}}
        result["host_ms"] = {name: short(host) for name, (_, host) in times.items()}
        if memory and not self.dry:
            names = [name for name in memory if name in calls]
            result["peak_mib"] = {name: short(self._peak(calls[name])) for name in names}
        if images:
            rates = {name: short(1000 * images / ms) for name, (ms, _) in times.items()}
            result["images_per_second"] = rates
        self.report(case, **result, times_faster=times_faster(times, builders), **facts)
        calls.clear()
        self.free()

    def built(self, case, builders):
        """Return the calls by name, each called before; those that fail are left out."""
        calls = {}
        for name, build in builders.items():
            with self.surviving(f"{case}, {name}"):
                call = build()
                for _ in range(1 if self.dry else WARM_UP):
                    call()
                self.synchronize()
                calls[name] = call
        return calls

    def check(self, case, bound, **values):
        """Report distances from a reference; one above the bound, or NaN, is an error."""
        far = {name: float(value) for name, value in values.items()}
        self.report(case, bound=bound, **{name: short(value) for name, value in far.items()})
        with self.surviving(case):
            above = {name: value for name, value in far.items() if not value <= bound}
            assert not above, f"above {bound}: {above}"

    def report(self, case, **values):
        """Print and keep a result; values by name of the contender make a table."""
        self.kept["rows"].append({"row": self.row, "case": case, **values})
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        facts = [f"{key} {value}" for key, value in values.items() if key not in tables]
        print(f"{self.row}: {case}" + f" ({', '.join(facts)})" * bool(facts))
        for name in dict.fromkeys(name for table in tables.values() for name in table):
            cells = [f"{key} {table[name]}" for key, table in tables.items() if name in table]
            print(f"    {name:26} {'  '.join(cells)}")
        sys.stdout.flush()
        self.save()

    def save(self):
        """Write what is known so far; a process that is killed leaves a whole file."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(self.kept))
        temporary.replace(self.path)

    def captured(self, call, repeats=1):
        """Return a CUDA graph of `repeats` calls; where there is no GPU, the call itself."""
        if self.dry:
            return call
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                call()
        return graph.replay

    def profile(self, case, call, most=15):
        """Report the kernels that take the most time of the device in one call."""
        self.synchronize()
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (not self.dry)
        start = time.perf_counter()
        with profile(activities=kinds) as record:
            call()
            self.synchronize()
        wall = 1000 * (time.perf_counter() - start)
        spent, counts = Counter(), Counter()
        for event in record.key_averages():
            if self.dry:
                spent[event.key] += event.self_cpu_time_total
            elif event.device_type == torch.autograd.DeviceType.CUDA:
                spent[event.key] += event.self_device_time_total
            counts[event.key] += event.count
        top = [
            {"kernel": name[:90], "ms": short(microseconds / 1000), "count": counts[name]}
            for name, microseconds in spent.most_common(most)
        ]
        kernels = sum(counts[name] for name in spent)
        whole = short(sum(spent.values()) / 1000)
        self.report(case, device_ms=whole, wall_ms_profiled=short(wall), kernels=kernels)
        for kernel in top:
            print(f"    {kernel['ms']:8} ms {kernel['count']:5} x {kernel['kernel']}")
        self.kept["rows"][-1]["top"] = top
        self.save()

    def warn(self, message, *rest):
        """Keep a warning once; takes the place of `warnings.showwarning`."""
        if (line := str(message)[:300]) not in self.kept["warnings"]:
            self.kept["warnings"].append(line)

    def normal(self, *shape, dtype=torch.float32, scale=1.0):
        """Return random numbers on the device; four axes lie channels last."""
        values = scale * torch.randn(shape, generator=self.generator, device=self.device)
        values = values.to(dtype)
        return values.to(memory_format=torch.channels_last) if len(shape) == 4 else values

    def integers(self, high, *shape):
        """Return random uint8 below `high`, on the device."""
        place = {"generator": self.generator, "device": self.device}
        return torch.randint(0, high, shape, dtype=torch.uint8, **place)

    def synchronize(self):
        """Wait for the device."""
        if not self.dry:
            torch.cuda.synchronize()

    def free(self):
        """Return memory that no tensor holds."""
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()

    def in_turn(self, calls, rounds=7, burst=BURST):
        """Return the median milliseconds of a call, on the device and of the host, by name."""
        sizes = {name: self._size(call, burst) for name, call in calls.items()}
        times = {name: [] for name in calls}
        for _ in range(1 if self.dry else rounds):
            for name, call in calls.items():
                times[name].append(self._timed(call, sizes[name]))
        return {
            name: tuple(statistics.median(values) for values in zip(*pairs, strict=True))
            for name, pairs in times.items()
        }

    def _size(self, call, burst):
        """Return how many calls take `burst` seconds."""
        if self.dry:
            return 1
        milliseconds = max(self._timed(call, 3)[0], 1e-3)
        return min(max(math.ceil(1000 * burst / milliseconds), 3), 300)

    def _timed(self, call, burst):
        self.synchronize()
        events = None if self.dry else [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        start = time.perf_counter()
        if events:
            events[0].record()
        for _ in range(burst):
            call()
        host = 1000 * (time.perf_counter() - start) / burst
        if not events:
            return host, host
        events[1].record()
        self.synchronize()
        return events[0].elapsed_time(events[1]) / burst, host

    def _peak(self, call):
        """Return the MiB that a call holds at its highest above what was held before."""
        self.free()
        self.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        self.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def short(number):
    """Round to four digits, for people and JSON; NaN and infinity as text."""
    value = float(number)
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)


def distance(found, expected):
    """Return the relative distance of two tensors, in float64."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def times_faster(times, names):
    """Return how many times the first one's time the others take; `times` has pairs or numbers."""
    first, *others = names
    alone = {name: ms[0] if isinstance(ms, tuple) else ms for name, ms in times.items()}
    if not alone.get(first):
        return {}
    return {name: short(alone[name] / alone[first]) for name in others if name in alone}
