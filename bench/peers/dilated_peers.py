#!/usr/bin/env python3
"""Dilated attention of Heed and of the packages that others use, in turns, one thread.

    python3 bench/peers/dilated_peers.py --lib build/release/libheed.so -o dilated.json

dilated-attention-pytorch divides the heads among the segments, as mode=grouped; torchscale mixes
all segments in every head, as mode=longnet, and is taken from a checkout in TORCHSCALE_SRC, for
the package on the index has no dilated attention. Both call a GPU library for the attention
itself: that step is PyTorch's CPU flash kernel here, all else is the packages' own code. Rates
count the same operations for all; "of_dense" is the rate over that of Heed's dense attention of
one segment and head."""

import argparse
import importlib.metadata
import os
import sys
import types

import common
import turns


def flash(torch, q, k, v, causal=False):
    """[B,S,H,D] in, ([B,S,H,D], log-sum-exp [B,H,S]) out."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(*(x.transpose(1, 2) for x in (q, k, v)), 0.0, causal)
    if lse.shape[-1] == q.shape[2] and lse.shape[1] == q.shape[1]:
        lse = lse.transpose(1, 2)
    return out.transpose(1, 2), lse


def operations(options, grouped):
    """Of the products, as both ways define them."""
    heads, parts = options.heads, len(options.segments)
    total = 0.0
    for i, (segment, rate) in enumerate(zip(options.segments, options.rates)):
        has = heads // parts + (i < heads % parts) if grouped else heads
        total += 4.0 * options.dim * has * (options.tokens // segment) * (segment // rate) ** 2
    return total


def package(torch, options, q, k, v):
    """dilated-attention-pytorch, with PyTorch's kernel in the place of xformers'."""
    ops = types.ModuleType("xformers.ops")
    ops.AttentionOp, ops.LowerTriangularMask = object, object
    ops.memory_efficient_attention = lambda query, key, value, op=None, attn_bias=None: flash(
        torch, query, key, value, attn_bias is not None
    )[0]
    sys.modules["xformers"] = types.ModuleType("xformers")
    sys.modules["xformers"].ops = sys.modules["xformers.ops"] = ops
    from dilated_attention_pytorch.dilated_attention import DilatedAttention

    module = DilatedAttention(segment_lengths=options.segments, dilation_rates=options.rates)
    return lambda: module(q, k, v)


def torchscale(torch, options, q, k, v):
    source = os.environ.get("TORCHSCALE_SRC")
    if not source:
        raise ImportError("TORCHSCALE_SRC names no checkout of microsoft/torchscale")
    sys.path.insert(0, source)
    import torchscale.component.dilated_attention as dilated
    import torchscale.component.multihead_attention as multihead

    multihead.flash_attn_func = lambda a, b, c, dropout, bias, scale, causal: flash(
        torch, a, b, c, causal
    )
    config = types.SimpleNamespace(
        segment_length=options.segments, dilated_ratio=options.rates, seq_parallel=False,
        flash_attention=True, multiway=False, xpos_rel_pos=False, layernorm_eps=1e-5,
    )
    width = options.heads * options.dim
    module = dilated.DilatedAttention(config, width, options.heads, self_attention=True)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(module, name, torch.nn.Identity())
    rows = [x.reshape(1, options.tokens, width) for x in (q, k, v)]
    return lambda: module(*rows)


def runs_of(torch, heed, options, dtype):
    """{name: (call, operations)}; who is not there is named."""
    n, heads, dim = options.tokens, options.heads, options.dim
    torch_type = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, n, heads, dim).to(torch_type) for _ in range(3))
    out = torch.empty_like(q)
    at = [x.data_ptr() for x in (q, k, v, out)]
    lists = [",".join(map(str, x)) for x in (options.segments, options.rates)]
    words = f"dilated dtype={dtype} n={n} hq={heads} d={dim} segments={lists[0]} rates={lists[1]}"
    dense = f"attention dtype={dtype} sq={options.segments[-1]} hq=1 d={dim}"
    runs = {}
    for name, text in (("heed dense", dense), ("heed longnet", f"{words} mode=longnet"),
                       ("heed grouped", f"{words} mode=grouped")):
        plan, info = heed.plan(text)
        run = heed.runner(plan, text.split()[0], at)
        runs[name] = lambda run=run, memory=(q, k, v, out): run(), info.flops
    for name, make, grouped in (("dilated-attention-pytorch", package, True),
                                ("torchscale", torchscale, False)):
        try:
            runs[name] = make(torch, options, q, k, v), operations(options, grouped)
        except ImportError as error:
            print(f"skipped: {name} ({error})", file=sys.stderr)
    return runs


def measure(torch, heed, options, dtype):
    runs = runs_of(torch, heed, options, dtype)
    times = turns.time_in_turns({name: run for name, (run, _) in runs.items()}, options.rounds)
    rows, rates = [], {}
    for name, taken in times.items():
        flops = runs[name][1]
        rates[name] = flops / taken["median"]
        rows.append({"impl": name, "dtype": dtype, "n": options.tokens, "flops": flops,
                     "median_ns": taken["median"], "best_ns": taken["best"],
                     "gflops": rates[name], "of_dense": rates[name] / rates["heed dense"]})
        print(f"{dtype} n={options.tokens} {name:26} {taken['median'] / 1e6:9.1f} ms "
              f"{rates[name]:6.1f} GFLOP/s  {rows[-1]['of_dense']:.2f} of dense", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = lambda text: [int(x) for x in text.split(",")]  # noqa: E731
    parser.add_argument("--lib", required=True, help="libheed.so")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--segments", type=numbers, default=[2048, 4096, 8192])
    parser.add_argument("--rates", type=numbers, default=[1, 2, 4])
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--out", help="JSON file")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "HEED_NUM_THREADS"):
        os.environ[name] = "1"
    modules = turns.find_modules(["torch"])
    torch = modules["torch"]
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    heed = common.Heed(options.lib)
    rows = []
    for dtype in options.dtypes.split(","):
        rows += measure(torch, heed, options, dtype)
    if "dilated_attention_pytorch" in sys.modules:
        modules["dilated_attention_pytorch"] = types.SimpleNamespace(
            __version__=importlib.metadata.version("dilated-attention-pytorch")
        )
    if options.out:
        turns.write_json(options.out, modules, rows, threads=1, clock="thread processor time")


if __name__ == "__main__":
    main()
