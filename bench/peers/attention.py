#!/usr/bin/env python3
"""Times Heed's attention on the CPU beside other programs', on the same problems in the same run.

    bench/peers/attention.py --build build/release --threads 1 --output peers-1t.json
    build/release/heed bench compare peers-1t.json

Each program runs in a process of its own and they take turns (A B C A B C), so that a machine that
slows down slows all. Every result is compared with float64 before it is timed. What is not
installed is named and left out; README.md says how each is called and how to install them."""

import argparse
import json
import math
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import common  # noqa: E402
from common import Skip  # noqa: E402

PROGRAMS = ["cpu", "torch", "flex", "zentorch", "ort", "openvino", "openblas", "ggml", "onednn"]
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "f16": 5e-3}  # relative, of the norm


# ---- problems ------------------------------------------------------------------------------------

class Problem:
    """The words that every program here understands; any other is Heed's alone."""

    def __init__(self, text):
        self.text = text
        words = dict(word.split("=") for word in text.split()[1:])
        self.dtype = words.pop("dtype", "f32")
        self.layout = words.pop("layout", "bshd")
        self.window = tuple(int(x) for x in words.pop("window", "-1,-1").split(","))
        numbers = {name: int(words.pop(name, default)) for name, default in
                   dict(b=1, sq=1024, sk=1024, hq=8, hk=8, d=64, causal=0).items()}
        self.__dict__.update(numbers)
        self.dv = int(words.pop("dv", self.d))
        self.foreign = words
        self.scale = 1 / math.sqrt(self.d)
        self.decode, self.group = self.sq == 1, self.hq // self.hk
        self.windowed = self.window != (-1, -1)
        self.masked = self.windowed or bool(self.causal) and not self.decode
        self.score_bytes = 4 * self.b * self.hq * self.sq * self.sk

    def visible(self, torch, rows=None):
        """Which keys each of the rows sees."""
        i = torch.arange(self.sq) if rows is None else rows
        at, j = (i + self.sk - self.sq)[:, None], torch.arange(self.sk)[None]
        seen = torch.ones(len(i), self.sk, dtype=torch.bool)
        if self.causal:
            seen &= j <= at
        if self.window[0] >= 0:
            seen &= j >= at - self.window[0]
        if self.window[1] >= 0:
            seen &= j <= at + self.window[1]
        return seen


class Data:
    """q, k, v as [B,H,S,D], and as the same in other storage."""

    def __init__(self, problem):
        import torch
        self.torch, self.problem, p = torch, problem, problem
        source = torch.Generator().manual_seed(1)
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[p.dtype]

        def new(heads, rows, columns):
            return torch.randn(p.b, heads, rows, columns, generator=source).to(self.dtype)
        self.q, self.k, self.v = new(p.hq, p.sq, p.d), new(p.hk, p.sk, p.d), new(p.hk, p.sk, p.dv)

    def view(self, layout):
        every = self.q, self.k, self.v
        if layout == "bshd":
            return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in every]
        if layout == "fused":
            one = self.torch.cat([x.transpose(1, 2).flatten(2) for x in every], 2)
            parts = one.split([x.shape[1] * x.shape[3] for x in every], 2)
            return [part.unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2)
                    for part, x in zip(parts, every)]
        return list(every)

    def error(self, out):
        """The relative error of [B,H,Sq,Dv] on some rows, against float64."""
        torch, p = self.torch, self.problem
        rows = torch.unique(torch.linspace(0, p.sq - 1, min(p.sq, 32)).round().long())
        seen, wrong, size = p.visible(torch, rows), 0.0, 0.0
        for h in range(p.hq):
            k, v = self.k[:, h // p.group].double(), self.v[:, h // p.group].double()
            s = self.q[:, h, rows].double() @ k.transpose(1, 2) * p.scale
            right = torch.softmax(s.masked_fill(~seen, -math.inf), -1) @ v
            wrong += float((out[:, h, rows].double() - right).square().sum())
            size += float(right.square().sum())
        return math.sqrt(wrong / size)


# ---- a worker ------------------------------------------------------------------------------------

def work(name, options):
    """Serves one program until there are no more questions."""
    import torch
    torch.set_grad_enabled(False)
    torch.set_num_threads(options.threads if name in ("torch", "flex", "zentorch") else 1)
    if name == "cpu":
        program = heed_program(common.Heed(options.library))
    else:
        import programs
        program = getattr(programs, name)
    held = {}

    def make(text):
        problem = Problem(text)
        if problem.foreign and name != "cpu":
            raise Skip(f"not put to others: {', '.join(problem.foreign)}")
        held["data"] = Data(problem)
        held["problem"] = problem
        yield from program(problem, held["data"], options)

    def check(text, out):
        error = held["data"].error(out)
        if not error <= TOLERANCE[held["problem"].dtype]:
            raise Skip(f"wrong: relative error {error:.2e}")
        return error
    common.serve(make, check)


def heed_program(library):
    """Heed by its own choice, on operands that lie as the problem says."""
    def program(p, data, options):
        plan, info = library.plan(p.text)
        q, k, v = data.view(p.layout)
        shape = (p.b, p.hq, p.sq, p.dv) if p.layout == "bhsd" else (p.b, p.sq, p.hq, p.dv)
        out = data.torch.empty(shape, dtype=data.dtype)
        addresses = [x.data_ptr() for x in (q, k, v, out)]
        run = library.runner(plan, "attention", addresses)
        run.kept = (q, k, v)
        yield common.Variant(info.impl.decode().partition(":")[2], run,
                             lambda: out if p.layout == "bhsd" else out.transpose(1, 2),
                             estimate=info.estimate_ns)
    return program


# ---- the run -------------------------------------------------------------------------------------

def environment(name, options):
    """What a program is told by its environment; thread counts are read when libraries load."""
    threads = str(options.threads)
    told = {"OMP_NUM_THREADS": threads, "HEED_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1"}  # heads are spread over threads of our own
    if name == "onednn" and options.onednn:
        told["LD_LIBRARY_PATH"] = os.path.join(options.onednn, "lib")
        told["OCL_ICD_FILENAMES"] = os.path.join(options.onednn, "lib", "libintelocl.so")
    return told


def start(options):
    """The programs that are there, and why others are not."""
    workers, missing = [], {}
    for name in options.programs:
        command = [sys.executable, os.path.abspath(__file__), "--worker", name, "--build",
                   options.build, "--threads", str(options.threads)]
        if options.onednn:
            command += ["--onednn", options.onednn]
        worker = common.Worker(name, command, environment(name, options))
        answer = worker.ask(prepare="attention dtype=f32 b=1 sq=64 sk=64 hq=2 hk=2 d=64")
        why = worker.dead if answer is None else next(
            (w for _, w in answer["skipped"] if "Error" in w), None)
        if why and not (answer and answer["variants"]):
            missing[name] = why
            print(f"{name} is missing and left out: {why}", file=sys.stderr)
            worker.end()
        else:
            workers.append(worker)
    return workers, missing


def read_problems(path, only):
    with open(path, encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    return [line for line in lines if line.startswith("attention ") and only in line]


def run(options):
    library = common.Heed(options.library)
    heed = os.path.join(options.build, "heed")
    texts = [t for path in options.shapes for t in read_problems(path, options.only)]
    asked = ["--threads", str(options.threads)] + [a for t in texts for a in ("--prob", t)]
    before = common.heed_bench(heed, "attention", asked)
    limits, context = common.limits_of(before), before["context"]
    work_of = {r["prob"]: (r["flops"], r["bytes"]) for r in before["results"]}
    workers, missing = start(options)
    results, refused = [], []
    for number, text in enumerate(dict.fromkeys(texts)):
        prob, dtype = library.full_text(text), Problem(text).dtype
        timed, skipped = common.race(workers, text, options.seconds, options.rounds,
                                     0 if options.threads == 1 else 0.02)
        print(f"[{number + 1}/{len(texts)}] {text}", file=sys.stderr)
        for worker, variant, samples in timed:
            results.append(common.result(
                prob, f"{worker.name}:{variant['name']}", dtype, options.threads, samples,
                *work_of[prob], limits.get(prob), variant["error"], variant.get("estimate")))
            print(f"    {results[-1]['impl']:34} {results[-1]['median_ns'] / 1e6:10.4f} ms",
                  file=sys.stderr)
        refused += [{"prob": prob, "impl": f"{w.name}:{n}", "why": why} for w, n, why in skipped]
    for worker in workers:
        worker.end()
    after = common.heed_bench(heed, "attention", asked[:4])
    context["limits_drift"] = common.drift_of(context["limits"], after["context"]["limits"])
    context["peers"] = {"python": platform.python_version(), "versions": versions(),
                        "missing": missing, "seconds": options.seconds, "rounds": options.rounds}
    return {"schema": "heed-bench-1", "context": context, "results": results, "refused": refused,
            "failed": []}


def versions():
    from importlib import metadata
    found = {}
    for package in ("torch", "zentorch", "onnxruntime", "openvino", "numpy", "ggml-python"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="folder of the build of Heed")
    parser.add_argument("--shapes", action="append", help="problem list, more than once; default: "
                        "prefill.txt and decode.txt")
    parser.add_argument("--only", default="", help="just the problems whose line contains this")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="comma list of "
                        + ", ".join(PROGRAMS) + "; cpu is Heed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing for each variant")
    parser.add_argument("--rounds", type=int, default=9, help="most samples of each variant")
    parser.add_argument("--onednn", help="prefix that holds lib/libdnnl.so and include/oneapi")
    parser.add_argument("--output", help="file for the results, else stdout")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.library = os.path.join(options.build, "libheed.so")
    if options.worker:
        work(options.worker, options)
        return
    options.programs = options.programs.split(",")
    unknown = [name for name in options.programs if name not in PROGRAMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    options.shapes = options.shapes or [os.path.join(HERE, "..", "shapes", name)
                                        for name in ("prefill.txt", "decode.txt")]
    document = json.dumps(run(options), indent=1)
    if options.output:
        with open(options.output + ".part", "w", encoding="utf-8") as file:
            file.write(document + "\n")
        os.replace(options.output + ".part", options.output)
    else:
        print(document)


if __name__ == "__main__":
    main()
