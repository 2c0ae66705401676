"""What the scripts of bench/peers share: libheed through ctypes, worker processes that take turns,
results in the form of `heed bench -o json`."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time


class Skip(Exception):
    """A program does not take a problem; the reason."""


# ---- libheed -------------------------------------------------------------------------------------

class PlanInfo(ctypes.Structure):
    """The head of heed_plan_info_t; the library fills what there is room for."""
    _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_int32),
                ("device", ctypes.c_int32 * 2), ("op", ctypes.c_char * 32),
                ("impl", ctypes.c_char * 64), ("estimate_ns", ctypes.c_double),
                ("flops", ctypes.c_double), ("bytes", ctypes.c_double),
                ("workspace_bytes", ctypes.c_uint64), ("fallback", ctypes.c_int32),
                ("fallback_why", ctypes.c_char * 160)]


class Heed:
    """libheed, told what to do by problem strings. HEED_NUM_THREADS says with how many threads."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(os.path.abspath(path))
        self.lib.heed_last_error.restype = ctypes.c_char_p
        self.lib.heed_problem_op.restype = ctypes.c_char_p
        self.lib.heed_problem_text.restype = ctypes.c_size_t
        self.context = ctypes.c_void_p()
        self.call("heed_context_create", None, ctypes.byref(self.context))

    def call(self, name, *arguments):
        if getattr(self.lib, name)(*arguments) != 0:
            raise Skip(self.lib.heed_last_error().decode())

    def parse(self, text):
        problem = ctypes.c_void_p()
        self.call("heed_problem_parse", text.encode(), ctypes.byref(problem))
        return problem

    def full_text(self, text):
        """The problem with every word, as results name it."""
        problem, full = self.parse(text), ctypes.create_string_buffer(2048)
        self.lib.heed_problem_text(problem, full, ctypes.c_size_t(len(full)))
        self.lib.heed_problem_destroy(problem)
        return full.value.decode()

    def plan(self, text):
        """A plan for the problem, and what is known of it."""
        problem, desc, plan = self.parse(text), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("heed_problem_desc", problem, ctypes.byref(desc))
        self.call("heed_plan_create", self.context, self.lib.heed_problem_op(problem), desc,
                  ctypes.byref(plan))
        self.lib.heed_problem_destroy(problem)
        info = PlanInfo(struct_size=ctypes.sizeof(PlanInfo))
        self.call("heed_plan_info", plan, ctypes.byref(info))
        return plan, info

    def operand_count(self, op):
        count, any_struct = 0, ctypes.create_string_buffer(256)
        while self.lib.heed_op_operand(op.encode(), count, any_struct):
            count += 1
        return count

    def runner(self, plan, op, addresses):
        """A function that executes the plan on operands at these addresses, the rest absent."""
        addresses = addresses + [0] * (self.operand_count(op) - len(addresses))
        size, align = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("heed_plan_workspace", plan, ctypes.byref(size), ctypes.byref(align))
        raw = ctypes.create_string_buffer(size.value + 64)
        work = ctypes.c_void_p((ctypes.addressof(raw) + 63) // 64 * 64)
        buffers = (ctypes.c_void_p * len(addresses))(*[a or None for a in addresses])
        execute = self.lib.heed_plan_execute

        def run(raw=raw):
            if execute(plan, buffers, len(addresses), work, size, None) != 0:
                raise Skip(self.lib.heed_last_error().decode())
        return run


# ---- a program in a process of its own -----------------------------------------------------------

class Variant:
    """One way to call a program: run() does one call, result() gives the output of the last."""

    def __init__(self, name, run, result, **more):
        self.name, self.run, self.result, self.more, self.ns = name, run, result, more, 0.0


def time_ns(run, repeats):
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - start) / repeats


def reason(error):
    lines = str(error).strip().splitlines() or [""]
    return (lines[0] if isinstance(error, Skip) else f"{type(error).__name__}: {lines[0]}")[:300]


def prepare(text, make, check):
    """The variants that give a right result, and why others do not run. make(text) is a generator
    of Variants; check(text, result) gives an error, or raises Skip."""
    variants, skipped, source = [], [], make(text)
    while True:
        variant = None
        try:
            variant = next(source)
            first = time_ns(variant.run, 1)
            variant.error = check(text, variant.result())
            variant.ns = first if first > 5e8 else min(first, time_ns(variant.run, 1))
            variants.append(variant)
        except StopIteration:
            return variants, skipped
        except Exception as error:  # one variant of one program must not end the table
            skipped.append((variant.name if variant else "", reason(error)))
            if variant is None:
                return variants, skipped


def serve(make, check):
    """A worker's life: a line of JSON comes, a line of JSON goes. Its libraries' own words go to
    stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    variants = []
    for line in sys.stdin:
        ask = json.loads(line)
        if "prepare" in ask:
            variants = []  # what the last problem held is free first
            variants, skipped = prepare(ask["prepare"], make, check)
            answer = {"skipped": skipped, "variants": [
                {"name": v.name, "ns": v.ns, "error": v.error, **v.more} for v in variants]}
        else:
            variant = variants[ask["time"]]
            if variant.ns < 3e8:
                variant.run()  # caches and the program's own threads wake up
            answer = {"ns": time_ns(variant.run, ask["repeats"])}
        answers.write(json.dumps(answer) + "\n")


class Worker:
    """A program in its own process: its threads sleep while others are timed, what it breaks is its
    own, and it gets the environment that suits it."""

    def __init__(self, name, command, environment):
        self.name, self.dead = name, None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True,
                                        env={**os.environ, **environment})

    def ask(self, **question):
        """None once the process has ended."""
        if self.dead:
            return None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self.dead = f"its process ended with {self.process.wait()}"
            return None
        return json.loads(line)

    def end(self):
        if not self.dead:
            self.process.stdin.close()
            self.process.wait()


def race(workers, text, seconds, most, rest):
    """Prepares a problem everywhere, then times all variants in turns. Returns (worker, variant,
    samples) and (worker, name, why)."""
    entries, skipped = [], []
    for worker in workers:
        answer = worker.ask(prepare=text)
        if answer is None:
            skipped.append((worker, "", worker.dead))
            continue
        skipped += [(worker, *pair) for pair in answer["skipped"]]
        for at, variant in enumerate(answer["variants"]):
            repeats = max(1, int(4e6 / max(variant["ns"], 1)))
            rounds = int(1e9 * seconds / (repeats * max(variant["ns"], 1)))
            entries.append((worker, at, variant, repeats, max(3, min(most, rounds)), []))
    for turn in range(most):
        for worker, at, _, repeats, rounds, samples in entries:
            if turn >= rounds:
                continue
            time.sleep(rest)  # until the threads of the one before have gone to sleep
            answer = worker.ask(time=at, repeats=repeats)
            if answer:
                samples.append(answer["ns"])
    return [(w, v, s) for w, _, v, _, _, s in entries if s], skipped


# ---- results -------------------------------------------------------------------------------------

def heed_bench(heed, op, arguments):
    """The document of `heed bench OP -o json`."""
    command = [heed, "bench", op, "--no-check", "--seconds", "0", "--samples", "1", "-o", "json"]
    done = subprocess.run(command + arguments, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        sys.exit(f"{heed} bench failed")
    return json.loads(done.stdout)


def limits_of(document):
    """The nanoseconds that the machine allows for each problem, and which limit that is."""
    return {r["prob"]: (r["median_ns"] * r["fraction_of_limit"], r["limit"])
            for r in document["results"] if r["fraction_of_limit"] is not None}


def drift_of(before, after):
    """The largest relative difference between two measurements of the limits."""
    drift = 0.0
    for name, a in before.items():
        b = after.get(name)
        if a and b:
            drift = max(drift, abs(a - b) / max(a, b))
    return drift


def result(prob, impl, dtype, threads, samples, flops, total_bytes, limit, error, estimate=None):
    """One of `results` in the form of heed bench; rel_err takes the place of max_err."""
    median = statistics.median(samples)
    limit_ns, limit_name = limit or (None, None)
    return {"prob": prob, "label": "", "impl": impl, "device": "cpu", "dtype": dtype,
            "threads": threads, "median_ns": round(median), "min_ns": round(min(samples)),
            "samples_ns": [round(s) for s in samples], "flops": round(flops),
            "bytes": round(total_bytes), "gflops": flops / median, "gbps": total_bytes / median,
            "limit": limit_name, "fraction_of_limit": limit_ns / median if limit_ns else None,
            "estimate_ns": round(estimate) if estimate else None,
            "predicted": estimate / median if estimate else None, "rel_err": error}
