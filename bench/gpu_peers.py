#!/usr/bin/env python3
"""Times Heed and what PyTorch offers for attention on one card, in turns on the same tensors.

    bench/gpu_peers.py --library build/gpu/libheed.so --output results.json
    bench/gpu_peers.py --library build/gpu/libheed.so --tune --output tune.json

Heed is called through ctypes on PyTorch's memory and stream. A sample is one call between two CUDA
events; before each, a buffer larger than the last cache is overwritten. Contenders take turns (A B
C A B C), and medians count. Each result is compared with float32 rows of the same problem first,
and a wrong one is not timed. The limits, a large product of matrices and a copy within the card,
are measured in the same run, before and after."""

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import time

CPU, CUDA = 1, 2
DTYPES = {"f32": 2 | 32 << 8 | 1 << 16, "f16": 2 | 16 << 8 | 1 << 16,
          "bf16": 4 | 16 << 8 | 1 << 16, "e4m3": 10 | 8 << 8 | 1 << 16}
EPSILON = {"f32": 2.0**-16, "f16": 2.0**-10, "bf16": 2.0**-7, "e4m3": 2.0**-3}


# ---- problems ------------------------------------------------------------------------------------

class Problem:
    """Attention of [b, s, heads, d] tensors."""

    def __init__(self, dtype, b, sq, sk, hq, hk, d, causal=0):
        self.dtype, self.b, self.sq, self.sk = dtype, b, sq, sk
        self.hq, self.hk, self.d, self.causal = hq, hk, d, causal

    def text(self):
        return (f"attention dtype={self.dtype} b={self.b} sq={self.sq} sk={self.sk} hq={self.hq} "
                f"hk={self.hk} d={self.d} causal={self.causal}"
                + (" out=bf16" if self.dtype == "e4m3" else ""))

    def flops(self):
        pairs = self.sq * self.sk
        if self.causal:
            pairs = sum(max(0, min(self.sk, i + 1 + self.sk - self.sq)) for i in range(self.sq))
        return 4 * self.b * self.hq * self.d * pairs

    def bytes(self):
        """Of keys and values, which is what decode reads."""
        return 2 * self.b * self.sk * self.hk * self.d * (DTYPES[self.dtype] >> 8 & 255) // 8


def prefill(dtype, d, lengths, causals=(0, 1)):
    """16 Ki tokens, 2048 columns: what the published figures are measured on."""
    return [Problem(dtype, max(1, 16384 // s), s, s, 2048 // d, 2048 // d, d, c)
            for s in lengths for c in causals]


def decode(b, sk, hk=8, group=4, d=128):
    return Problem("bf16", b, 1, sk, hk * group, hk, d)


def bench_problems():
    return (prefill("bf16", 128, (4096, 16384, 32768)) + prefill("bf16", 64, (16384,))
            + prefill("bf16", 256, (16384,)) + prefill("f16", 128, (16384,))
            + prefill("e4m3", 128, (16384,))
            + [Problem("bf16", 2, 8192, 8192, 32, 8, 128, 1)]
            + [decode(1, 1024), decode(1, 32768), decode(32, 8192), decode(64, 16384)])


def tune_problems():
    return (prefill("bf16", 64, (8192,)) + prefill("bf16", 128, (8192,))
            + prefill("bf16", 256, (8192,)) + prefill("e4m3", 128, (8192,))
            + [decode(1, 32768), decode(32, 8192)])


# ---- Heed ----------------------------------------------------------------------------------------

class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class Stream(ctypes.Structure):
    _fields_ = [("device", Device), ("native", ctypes.c_void_p)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", Device), ("ndim", ctypes.c_int32),
                ("dtype", ctypes.c_uint32), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Attention(ctypes.Structure):
    """heed_attention_desc_t in its first form; the library fills in what came later."""
    _fields_ = [("struct_size", ctypes.c_uint32), ("causal", ctypes.c_int32),
                ("align", ctypes.c_int32), ("scale", ctypes.c_float),
                ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64),
                ("q", Tensor), ("k", Tensor), ("v", Tensor), ("out", Tensor), ("lse", Tensor),
                ("tiles", ctypes.c_void_p), ("merge", ctypes.c_int32)]


class Config(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("ignore_environment", ctypes.c_int32),
                ("threads", ctypes.c_int32), ("fallback", ctypes.c_int32),
                ("log_level", ctypes.c_int32), ("log", ctypes.c_void_p),
                ("log_user", ctypes.c_void_p), ("alloc", ctypes.c_void_p),
                ("free", ctypes.c_void_p), ("alloc_user", ctypes.c_void_p),
                ("device", ctypes.c_char_p), ("impl", ctypes.c_char_p),
                ("skip_impl", ctypes.c_char_p), ("max_cpu_isa", ctypes.c_char_p)]


class Impl(ctypes.Structure):
    """The head of heed_impl_t."""
    _fields_ = [("struct_size", ctypes.c_uint32), ("op", ctypes.c_char_p),
                ("name", ctypes.c_char_p)]


class Refused(Exception):
    """A contender does not take a problem."""


class Library:
    """libheed through ctypes."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(os.path.abspath(path))
        self.lib.heed_last_error.restype = ctypes.c_char_p
        self.lib.heed_version.restype = ctypes.c_char_p
        self.lib.heed_device_missing.restype = ctypes.c_char_p
        self.lib.heed_impl_at.restype = ctypes.POINTER(Impl)
        self.contexts = {}

    def call(self, name, *arguments):
        if getattr(self.lib, name)(*arguments) != 0:
            raise Refused(self.lib.heed_last_error().decode())

    def context(self, impl=None):
        """One whose only implementation of attention is `impl`."""
        if impl not in self.contexts:
            config = Config(struct_size=ctypes.sizeof(Config), ignore_environment=0)
            if impl:
                config.impl = f"attention={impl}".encode()
            context = ctypes.c_void_p()
            self.call("heed_context_create", ctypes.byref(config), ctypes.byref(context))
            self.contexts[impl] = context
        return self.contexts[impl]

    def missing(self):
        """Why there is no card, None where there is one."""
        why = self.lib.heed_device_missing(self.context(), CUDA)
        return why.decode() if why else None

    def impls(self, prefix="cuda:"):
        """Names of attention's implementations that begin so."""
        names, index = [], 0
        while True:
            at = self.lib.heed_impl_at(self.context(), index)
            if not at:
                return names
            index += 1
            if at.contents.op == b"attention" and at.contents.name.decode().startswith(prefix):
                names.append(at.contents.name.decode())


class Plan:
    """A plan of heed_attention_plan with its operands; tensors are (address, shape, strides,
    dtype)."""

    def __init__(self, library, impl, tensors, device, causal, allocate):
        self.library, self.device, self.kept = library, Device(*device), []
        desc = Attention(struct_size=ctypes.sizeof(Attention), causal=causal, window_left=-1,
                         window_right=-1)
        for name, tensor in zip(("q", "k", "v", "out"), tensors):
            setattr(desc, name, self.describe(*tensor))
        self.plan = ctypes.c_void_p()
        library.call("heed_attention_plan", library.context(impl), ctypes.byref(desc),
                     ctypes.byref(self.plan))
        bytes_, align = ctypes.c_size_t(), ctypes.c_size_t()
        library.call("heed_plan_workspace", self.plan, ctypes.byref(bytes_), ctypes.byref(align))
        self.workspace_bytes = bytes_
        self.workspace = ctypes.c_void_p(allocate(bytes_.value) if bytes_.value else None)
        self.buffers = (ctypes.c_void_p * 4)(*[tensor[0] for tensor in tensors])
        self.impl = self.chosen()

    def describe(self, address, shape, strides, dtype):
        axes = [(ctypes.c_int64 * len(shape))(*shape), (ctypes.c_int64 * len(shape))(*strides)]
        self.kept += axes
        return Tensor(address, self.device, len(shape), DTYPES[dtype], *axes, 0)

    def chosen(self):
        """The name of the implementation that runs: after struct_size, threads, device and op."""
        info = ctypes.create_string_buffer(4096)
        ctypes.c_uint32.from_buffer(info).value = 4096
        self.library.call("heed_plan_info", self.plan, info)
        return info.raw[48:112].split(b"\0")[0].decode()

    def execute(self, stream):
        at = Stream(self.device, stream)
        self.library.call("heed_plan_execute", self.plan, self.buffers, 4, self.workspace,
                          self.workspace_bytes, ctypes.byref(at))

    def close(self):
        self.library.lib.heed_plan_destroy(self.plan)


# ---- contenders ----------------------------------------------------------------------------------

class HeedContender:
    def __init__(self, library, impl=None):
        self.library, self.impl, self.plan, self.kept = library, impl, None, None
        self.name = f"heed {impl}" if impl else "heed"

    def prepare(self, card, problem, tensors):
        """A call without arguments that runs the problem and gives its output."""
        def allocate(count):
            self.kept = card.torch.empty(count, dtype=card.torch.uint8, device=card.device)
            return self.kept.data_ptr()

        out = card.empty_out(problem, tensors)
        operands = [(t.data_ptr(), tuple(t.shape), tuple(t.stride()), card.dtype_name(t))
                    for t in (*tensors, out)]
        self.plan = Plan(self.library, self.impl, operands, (CUDA, card.index), problem.causal,
                         allocate)
        stream = card.stream.cuda_stream
        self.runs = self.plan.impl

        def run():
            self.plan.execute(stream)
            return out
        return run

    def close(self):
        if self.plan:
            self.plan.close()
        self.plan = self.kept = None


class TorchContender:
    """torch.nn.functional.scaled_dot_product_attention held to one backend."""

    def __init__(self, name, backend):
        self.name, self.backend, self.runs = f"torch {name}", backend, name

    def prepare(self, card, problem, tensors):
        torch = card.torch
        if problem.dtype == "e4m3":
            raise Refused("SDPA takes no FP8")
        q, k, v = (t.transpose(1, 2) for t in tensors)
        choices = {"enable_gqa": True} if problem.hq != problem.hk else {}

        def run():
            with torch.nn.attention.sdpa_kernel(self.backend):
                out = torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=bool(problem.causal), **choices)
            return out.transpose(1, 2)
        return run

    def close(self):
        pass


def torch_contenders(torch):
    """Those that this PyTorch has; each says by itself what it does not take."""
    backends = getattr(getattr(torch.nn, "attention", None), "SDPBackend", None)
    names = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION",
             "efficient": "EFFICIENT_ATTENTION"}
    return [TorchContender(name, getattr(backends, constant))
            for name, constant in names.items() if hasattr(backends, constant)]


# ---- the card ------------------------------------------------------------------------------------

class Card:
    def __init__(self, torch, index):
        self.torch, self.index, self.device = torch, index, f"cuda:{index}"
        torch.cuda.set_device(index)
        self.properties = torch.cuda.get_device_properties(index)
        self.stream = torch.cuda.Stream(device=index)
        cache = getattr(self.properties, "L2_cache_size", 0) or 64 << 20
        # Long enough that a call is enqueued before the card is done with it.
        self.flush = torch.empty(max(2 * cache, 512 << 20), dtype=torch.uint8, device=self.device)
        self.types = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16,
                      "e4m3": getattr(torch, "float8_e4m3fn", None)}

    def dtype_name(self, tensor):
        return next(name for name, dtype in self.types.items() if dtype == tensor.dtype)

    def random(self, shape, dtype):
        if self.types[dtype] is None:
            raise Refused(f"this PyTorch has no {dtype}")
        made = self.torch.randn(shape, dtype=self.torch.float16 if dtype == "e4m3" else
                                self.types[dtype], device=self.device)
        return made.to(self.types[dtype])

    def tensors(self, problem):
        p = problem
        self.torch.manual_seed(1)
        return [self.random((p.b, s, h, p.d), p.dtype)
                for s, h in ((p.sq, p.hq), (p.sk, p.hk), (p.sk, p.hk))]

    def empty_out(self, problem, tensors):
        dtype = self.torch.bfloat16 if problem.dtype == "e4m3" else tensors[0].dtype
        return self.torch.full(tuple(tensors[0].shape), math.nan, dtype=dtype, device=self.device)

    def synchronize(self):
        self.torch.cuda.synchronize(self.index)

    def sample(self, run):
        """Enqueues one timed call; the pair of events is read when all are done."""
        start = self.torch.cuda.Event(enable_timing=True)
        end = self.torch.cuda.Event(enable_timing=True)
        self.flush.zero_()
        start.record()
        run()
        end.record()
        return start, end

    def best_ms(self, run, count=10):
        with self.torch.cuda.stream(self.stream):
            events = [self.sample(run) for _ in range(count)]
        self.synchronize()
        return min(start.elapsed_time(end) for start, end in events[1:])

    def limits(self):
        torch, size, count = self.torch, 8192, 1 << 29
        limits = {}
        for dtype in ("bf16", "f16"):
            a, b = self.random((size, size), dtype), self.random((size, size), dtype)
            limits[f"matmul_{dtype}_tflops"] = 2 * size**3 / self.best_ms(lambda: a @ b) / 1e9
        source = torch.zeros(count, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        limits["copy_gbps"] = 2 * count / self.best_ms(lambda: target.copy_(source)) / 1e6
        return limits


# ---- checking ------------------------------------------------------------------------------------

def reference_rows(card, problem, tensors, batch, head, rows):
    """Rows of the output in float32, from all keys."""
    key_head = head * problem.hk // problem.hq
    q, k, v = (t[batch, :, h].float() for t, h in zip(tensors, (head, key_head, key_head)))
    scores = q[rows] @ k.T / math.sqrt(problem.d)
    if problem.causal:
        at = card.torch.tensor([r + problem.sk - problem.sq for r in rows], device=card.device)
        keys = card.torch.arange(problem.sk, device=card.device)
        scores = scores.masked_fill(keys[None, :] > at[:, None], -math.inf)
    return scores.softmax(-1) @ v


def error_of(card, problem, tensors, out):
    """The largest error of some rows, over what is allowed; NaN counts as wrong."""
    some = {0, 1, problem.sq // 2, problem.sq - 2, problem.sq - 1}
    spread = sorted(some & set(range(problem.sq)))
    worst = 0.0
    for batch, head in ((0, 0), (problem.b - 1, problem.hq - 1)):
        want = reference_rows(card, problem, tensors, batch, head, spread)
        got = out[batch, :, head].float()[spread]
        error = float((got - want).abs().max())
        allowed = EPSILON[problem.dtype] * (float(want.abs().max()) + 0.02)
        worst = max(worst, math.inf if math.isnan(error) else error / allowed)
    return worst


# ---- the race ------------------------------------------------------------------------------------

def enter(card, contender, problem, tensors):
    """A runner, or the reason why there is none."""
    try:
        run = contender.prepare(card, problem, tensors)
        with card.torch.cuda.stream(card.stream):
            out = run()
        card.synchronize()
        ratio = error_of(card, problem, tensors, out)
    except Refused as refusal:
        return None, f"refuses: {refusal}"
    except Exception as error:  # PyTorch's own refusals are RuntimeErrors of many kinds
        return None, f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if not ratio <= 1:
        return None, f"WRONG: {ratio:.3g} times the error that is allowed"
    return run, ratio


def race(card, problem, contenders, seconds, most=60):
    tensors = card.tensors(problem)
    # What was filled is read on another stream.
    card.synchronize()
    runners, results = [], []
    for contender in contenders:
        run, why = enter(card, contender, problem, tensors)
        if run:
            runners.append((contender, run, why, []))
        else:
            results.append({"prob": problem.text(), "name": contender.name, "why": why})
    end, turns = time.monotonic() + seconds, 0
    while runners and turns < most and (turns < 5 or time.monotonic() < end):
        with card.torch.cuda.stream(card.stream):
            pairs = [(times, card.sample(run)) for _, run, _, times in runners]
        card.synchronize()
        turns += 1
        if turns > 2:  # the first turns warm up
            for times, (start, last) in pairs:
                times.append(start.elapsed_time(last))
    for contender, _, ratio, times in runners:
        results.append({"prob": problem.text(), "name": contender.name, "impl": contender.runs,
                        "median_ms": statistics.median(times), "min_ms": min(times),
                        "samples_ms": times, "error_ratio": ratio,
                        "tflops": problem.flops() / statistics.median(times) / 1e9,
                        "kv_gbps": problem.bytes() / statistics.median(times) / 1e6})
    for contender in contenders:
        contender.close()
    return results


# ---- reports -------------------------------------------------------------------------------------

def smi(index):
    """What nvidia-smi tells of the card, {} where it does not work."""
    fields = ["name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm",
              "power.draw", "power.limit", "temperature.gpu"]
    try:
        line = subprocess.run(["nvidia-smi", f"--id={index}", "--format=csv,noheader",
                               f"--query-gpu={','.join(fields)}"], capture_output=True, text=True,
                              timeout=20, check=True).stdout
        return dict(zip(fields, (word.strip() for word in line.split(","))))
    except (OSError, subprocess.SubprocessError):
        return {}


def rate_of(result, problem):
    return result["kv_gbps" if problem.sq == 1 else "tflops"]


def rate(result, problem):
    if problem.sq == 1:
        return f"{rate_of(result, problem):8.0f} GB/s"
    return f"{rate_of(result, problem):8.1f} TFLOP/s"


def print_table(problems, results, limits, to=None):
    for name, value in limits.items():
        print(f"{name} {value:.1f}", end="   ", file=to)
    print(file=to)
    for problem in problems:
        mine = [r for r in results if r["prob"] == problem.text()]
        timed = sorted((r for r in mine if "median_ms" in r), key=lambda r: r["median_ms"])
        peers = [r["median_ms"] for r in timed if not r["name"].startswith("heed")]
        print(f"\n{problem.text()}", file=to)
        for result in timed:
            label = result["name"] + (f" ({result['impl']})" if result["name"] == "heed" else "")
            beside = ""
            if peers and result["name"].startswith("heed"):
                beside = f"   {min(peers) / result['median_ms']:.2f}x the best peer"
            print(f"  {label:34} {result['median_ms']:9.4f} ms {rate(result, problem)}{beside}",
                  file=to)
        for result in mine:
            if "why" in result and ("WRONG" in result["why"] or result["name"].startswith("heed")):
                print(f"  {result['name']:34} {result['why'][:160]}", file=to)


def short(problem):
    what = f"d={problem.d} {problem.dtype}"
    if problem.sq == 1:
        return f"{what} b={problem.b} decode"
    return what + (" causal" if problem.causal else "")


def tune_table(problems, results):
    """[{"name", shape: TFLOP/s, of decode GB/s, or None}], a row an implementation, those with the
    best rates first."""
    rows = {}
    for problem in problems:
        mine = {r["name"].removeprefix("heed "): r for r in results
                if r["prob"] == problem.text() and "median_ms" in r}
        best = max((rate_of(r, problem) for r in mine.values()), default=1)
        for name, result in mine.items():
            row = rows.setdefault(name, {"name": name, "best": 0})
            row[short(problem)] = rate_of(result, problem)
            row["best"] = max(row["best"], rate_of(result, problem) / best)
    return sorted(rows.values(), key=lambda row: (-row["best"], row["name"]))


def print_tune_table(problems, rows, to=None):
    """Rates, the best of a shape with a star."""
    shapes = [short(problem) for problem in problems]
    width = max([len(row["name"]) for row in rows] + [7])

    def line(first, cells):
        print("  ".join([f"{first:{width}}"] + [f"{cell:>{max(9, len(shape))}}"
                                                for cell, shape in zip(cells, shapes)]), file=to)
    print("\nTFLOP/s, of decode GB/s; * the best of its shape", file=to)
    line("variant", shapes)
    best = {shape: max((row.get(shape, 0) for row in rows), default=0) for shape in shapes}
    for row in rows:
        line(row["name"], [f"{row[shape]:.1f}{'*' if row[shape] == best[shape] else ' '}"
                           if shape in row else "- " for shape in shapes])


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True,
                        help="libheed.so, with libheed-cuda.so beside it")
    parser.add_argument("--device", type=int, default=0, help="number of the card (default 0)")
    parser.add_argument("--tune", action="store_true",
                        help="every implementation of Heed by itself, without peers")
    parser.add_argument("--seconds", type=float, default=120,
                        help="for all problems together (default 120)")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args(arguments)


def main(arguments=None, torch=None, problems=None):
    options = parse(arguments)
    if torch is None:
        try:
            import torch
        except ImportError as error:
            sys.exit(f"gpu_peers: PyTorch cannot be imported: {error}")
    if not torch.cuda.is_available():
        sys.exit("gpu_peers: PyTorch finds no card that it can use")
    library = Library(options.library)
    if library.missing():
        sys.exit(f"gpu_peers: Heed finds no card: {library.missing()}")
    card = Card(torch, options.device)
    if options.tune:
        problems = problems or tune_problems()
        contenders = [HeedContender(library, impl) for impl in library.impls()
                      if not impl.endswith(("_simt", ":standard"))]
    else:
        problems = problems or bench_problems()
        contenders = ([HeedContender(library), HeedContender(library, "cuda:standard")]
                      if "cuda:standard" in library.impls() else [HeedContender(library)])
        contenders += torch_contenders(torch)
    begin, before, limits = time.monotonic(), smi(options.device), card.limits()
    results = []
    for i, problem in enumerate(problems):
        print(f"[{i + 1}/{len(problems)}] {problem.text()}", file=sys.stderr)
        left = options.seconds - (time.monotonic() - begin)
        if left <= 0:
            results.append({"prob": problem.text(), "name": "heed", "why": "left out: no time"})
            continue
        try:
            results += race(card, problem, contenders, left / (len(problems) - i))
        except (Refused, RuntimeError) as error:
            results.append({"prob": problem.text(), "name": "heed", "why": f"fails: {error}"})
        torch.cuda.empty_cache()
    after = card.limits()
    limits = {name: max(value, after[name]) for name, value in limits.items()}
    table = tune_table(problems, results)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump({"schema": "heed-gpu-1", "heed": library.lib.heed_version().decode(),
                       "torch": str(torch.__version__), "cuda": str(torch.version.cuda),
                       "card": card.properties.name, "before": before, "after": smi(options.device),
                       "command": " ".join(sys.argv),
                       "timing": "events around single calls in turns, last cache overwritten",
                       "limits": limits, "results": results}
                      | ({"table": table} if options.tune else {}), file, indent=1)
            file.write("\n")
    print_table(problems, results, limits)
    if options.tune:
        print_tune_table(problems, table)
    wrong = [r for r in results if r["name"].startswith("heed")
             and r.get("why", "").startswith(("WRONG", "fails"))]
    return 1 if wrong or not any("median_ms" in r for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
