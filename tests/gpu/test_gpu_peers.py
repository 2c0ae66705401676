#!/usr/bin/env python3
"""bench/gpu_peers.py on a fake PyTorch and the fake card of tests/cuda: small problems go through
the whole program, ctypes and all, and what comes out is computed again here.
    test_gpu_peers.py SOURCE LIBHEED WORK    with HEED_PLUGIN_PATH naming the fake card's plugin"""

import contextlib
import ctypes
import io
import json
import math
import os
import random
import sys
import types

SOURCE, LIBHEED, WORK = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "bench"))
import gpu_peers  # noqa: E402

CARD, HOST = gpu_peers.Device(2, 0), gpu_peers.Device(1, 0)
library = gpu_peers.Library(LIBHEED)


# ---- a PyTorch of float32 tensors in the card's memory ------------------------------------------

class Tensor:
    def __init__(self, shape, values=None, dtype="float32"):
        self.shape, self.dtype, self.turned = tuple(shape), dtype, False
        self.count = math.prod(self.shape)
        self.at = ctypes.c_void_p()
        library.call("heed_memory_alloc", library.context(), CARD, ctypes.c_size_t(self.bytes()),
                     ctypes.byref(self.at))
        if values is not None:
            self.copy(ctypes.byref((ctypes.c_float * self.count)(*values)), True)

    def bytes(self):
        return max(1, self.count) * (1 if self.dtype == "uint8" else 4)

    def copy(self, host, up):
        sides = (self.at, CARD, host, HOST) if up else (host, HOST, self.at, CARD)
        library.call("heed_memory_copy", library.context(), *sides,
                     ctypes.c_size_t(self.bytes()), None)

    def values(self):
        made = (ctypes.c_float * self.count)()
        self.copy(ctypes.byref(made), False)
        return list(made)

    def data_ptr(self):
        return self.at.value

    def stride(self):
        steps = [1]
        for length in reversed(self.shape[1:]):
            steps.insert(0, steps[0] * length)
        return tuple(steps)

    def transpose(self, _first, _second):
        return self

    def zero_(self):
        pass

    def copy_(self, _other):
        pass

    def to(self, _dtype):
        return self

    def __matmul__(self, _other):
        return self


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def elapsed_time(self, _end):
        return 0.5


def attend(problem, q, k, v):
    """[b][s][h][d] lists, by the formula."""
    p, out = problem, []
    for b in range(p.b):
        for i in range(p.sq):
            for h in range(p.hq):
                row = q[((b * p.sq + i) * p.hq + h) * p.d:][:p.d]
                keys = range(i + 1 + p.sk - p.sq if p.causal else p.sk)
                at = [((b * p.sk + j) * p.hk + h * p.hk // p.hq) * p.d for j in keys]
                scores = [sum(x * y for x, y in zip(row, k[a:a + p.d])) / math.sqrt(p.d)
                          for a in at]
                weights = [math.exp(s - max(scores)) for s in scores]
                out += [sum(w * v[a + d] for w, a in zip(weights, at)) / sum(weights)
                        for d in range(p.d)]
    return out


current = {}


def sdpa(q, k, v, is_causal, **choices):
    """Right for flash, wrong for efficient; cudnn refuses."""
    problem = current["problem"]
    assert is_causal == bool(problem.causal) and bool(choices) == (problem.hq != problem.hk)
    if current["backend"] == "cudnn":
        raise RuntimeError("No available kernel.\nAborting execution.")
    values = attend(problem, q.values(), k.values(), v.values())
    return Tensor(q.shape, [x + (current["backend"] == "efficient") for x in values])


@contextlib.contextmanager
def sdpa_kernel(backend):
    current["backend"] = backend
    yield


def fake_torch():
    torch = types.SimpleNamespace(
        __version__="0", float32="float32", float16="f16", bfloat16="bf16", uint8="uint8",
        version=types.SimpleNamespace(cuda="0"), manual_seed=random.seed,
        randn=lambda shape, dtype, device: Tensor(
            shape, [random.gauss(0, 1) for _ in range(min(math.prod(shape), 4096))]
            if math.prod(shape) <= 4096 else None),
        empty=lambda count, dtype, device: Tensor((min(count, 4096),), dtype="uint8"),
        zeros=lambda count, dtype, device: Tensor((1,)), empty_like=lambda other: other,
        full=lambda shape, value, dtype, device: Tensor(shape, [value] * math.prod(shape)))
    torch.cuda = types.SimpleNamespace(
        is_available=lambda: True, set_device=lambda index: None, Event=Event,
        get_device_properties=lambda index: types.SimpleNamespace(name="Fake",
                                                                  L2_cache_size=1 << 20),
        Stream=lambda device: types.SimpleNamespace(cuda_stream=0),
        stream=lambda stream: contextlib.nullcontext(), synchronize=lambda index: None,
        empty_cache=lambda: None)
    backends = types.SimpleNamespace(CUDNN_ATTENTION="cudnn", FLASH_ATTENTION="flash",
                                     EFFICIENT_ATTENTION="efficient")
    torch.nn = types.SimpleNamespace(
        attention=types.SimpleNamespace(SDPBackend=backends, sdpa_kernel=sdpa_kernel),
        functional=types.SimpleNamespace(scaled_dot_product_attention=sdpa))
    return torch


def error_of(_card, problem, tensors, out):
    want = attend(problem, *(t.values() for t in tensors))
    return max(abs(x - y) for x, y in zip(out.values(), want)) / 1e-4


# ---- the test ------------------------------------------------------------------------------------

def run(extra, problems):
    file = os.path.join(WORK, "peers.json")
    tensors, printed = gpu_peers.Card.tensors, io.StringIO()

    def noted(card, problem):
        current["problem"] = problem
        return tensors(card, problem)
    gpu_peers.Card.tensors, gpu_peers.error_of = noted, error_of
    gpu_peers.Card.limits = lambda card: {"copy_gbps": 1.0}
    with contextlib.redirect_stdout(printed):
        code = gpu_peers.main(["--library", LIBHEED, "--output", file, "--seconds", "1", *extra],
                              fake_torch(), problems)
    gpu_peers.Card.tensors = tensors
    with open(file, encoding="utf-8") as stream:
        return code, json.load(stream), printed.getvalue()


def main():
    assert library.missing() is None, library.missing()
    problems = [gpu_peers.Problem("f32", 2, 5, 5, 4, 2, 16, 1),
                gpu_peers.Problem("f32", 1, 3, 7, 2, 2, 32, 0)]
    code, results, text = run([], problems)
    by_name = {(r["prob"], r["name"]): r for r in results["results"]}
    assert code == 0, (code, results)
    for problem in problems:
        heed = by_name[problem.text(), "heed"]
        assert heed["impl"].startswith("cuda:") and heed["error_ratio"] <= 1, heed
        assert heed["median_ms"] == 0.5 and len(heed["samples_ms"]) >= 3, heed
        assert "median_ms" in by_name[problem.text(), "torch flash"]
        assert by_name[problem.text(), "torch efficient"]["why"].startswith("WRONG")
        assert by_name[problem.text(), "torch cudnn"]["why"] == (
            "fails: RuntimeError: No available kernel.")
    assert "1.00x the best peer" in text and "copy_gbps 1.0" in text, text
    code, results, text = run(["--tune"], problems)
    names = {r["name"] for r in results["results"]}
    table = results["table"]
    assert {f"heed {row['name']}" for row in table} <= names and len(table) > 1, table
    shape = gpu_peers.short(problems[0])
    want = problems[0].flops() / 0.5 / 1e9
    assert all(abs(row[shape] - want) < 1e-9 for row in table if shape in row), table
    lines = [line for line in text.splitlines() if line.startswith(table[0]["name"])]
    assert f"{want:.1f}*" in lines[-1] and "* the best of its shape" in text, text
    assert not any(name.startswith("torch") or name.endswith("simt") for name in names), names
    assert gpu_peers.Problem("bf16", 1, 4, 4, 1, 1, 8, 1).flops() == 4 * 8 * 10
    print("gpu_peers.py does what it should")


main()
