"""Programs in one process, in turns: which modules are there, timing, memory, results."""

import importlib
import json
import os
import platform
import statistics
import sys
import time


def find_modules(names):
    """The modules that are installed, by name; the others are named on stderr."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            print(f"skipped: {name} ({error})", file=sys.stderr)
    return found


def versions(modules):
    return {name: getattr(module, "__version__", "unknown") for name, module in modules.items()}


def cpu_name():
    try:
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _sample(run, repeats):
    begin = time.thread_time_ns()
    for _ in range(repeats):
        run()
    return (time.thread_time_ns() - begin) / repeats


def time_in_turns(runs, rounds=15, sample_ns=2e6):
    """Nanoseconds of each callable: {name: {"median": ..., "best": ...}}.

    All take turns, so that a machine that slows down slows them all. The clock is that of this
    thread's processor time: run with one thread."""
    repeats, samples = {}, {name: [] for name in runs}
    for name, run in runs.items():
        run()
        repeats[name] = max(1, int(sample_ns / max(_sample(run, 1), 1)))
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(_sample(run, repeats[name]))
    return {
        name: {"median": statistics.median(taken), "best": min(taken)}
        for name, taken in samples.items()
    }


def memory(numpy, nbytes, aside=0):
    """Zeroed bytes whose address is `aside` above a multiple of a page. Operands at the same place
    in their pages would make each store wait for loads that are none of its business."""
    whole = numpy.zeros(nbytes + 8192, numpy.uint8)
    skip = -whole.ctypes.data % 4096 + aside
    return whole[skip : skip + nbytes]


def write_json(path, modules, rows, **context):
    """One file: what it ran on, with which peers, and the rows."""
    document = {
        "context": dict(
            context,
            cpu=cpu_name(),
            cpus=os.cpu_count(),
            load=os.getloadavg(),
            python=platform.python_version(),
            peers=versions(modules),
        ),
        "results": rows,
    }
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
