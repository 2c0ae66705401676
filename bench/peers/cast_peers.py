#!/usr/bin/env python3
"""Casts of Heed, PyTorch, ml_dtypes and ONNX Runtime in turns on the same numbers, one thread.

    python3 bench/peers/cast_peers.py --lib build/release/libheed.so -o casts.json

Peers that are not installed are named and skipped. "of_memcpy" is the time of a copy that moves as
many bytes, divided by the cast's: 1 is as fast as copying. Codes that differ from Heed's are
counted; all numbers are within the range of every format, where all agree."""

import argparse
import os

import common
import turns

PAIRS = [
    ("f32", "e4m3"),
    ("f32", "e5m2"),
    ("bf16", "e4m3"),
    ("bf16", "e5m2"),
    ("e4m3", "bf16"),
    ("e4m3", "f32"),
    ("e5m2", "bf16"),
    ("e5m2", "f32"),
    ("f32", "bf16"),
    ("bf16", "f32"),
]
BYTES = {"f32": 4, "bf16": 2, "e4m3": 1, "e5m2": 1}


def heed_cast(heed, src, dst, n, source, result):
    plan, _ = heed.plan(f"cast src={src} dst={dst} n={n}")
    return heed.runner(plan, "cast", [source.ctypes.data, result.ctypes.data])


def torch_cast(torch, source, src, dst, result):
    types = {
        "f32": torch.float32,
        "bf16": torch.bfloat16,
        "e4m3": torch.float8_e4m3fn,
        "e5m2": torch.float8_e5m2,
    }
    x = torch.from_numpy(source).view(types[src])
    y = torch.from_numpy(result).view(types[dst])
    return lambda: y.copy_(x)


def ml_dtypes_cast(ml_dtypes, source, src, dst, result):
    import numpy

    types = {
        "f32": numpy.float32,
        "bf16": ml_dtypes.bfloat16,
        "e4m3": ml_dtypes.float8_e4m3fn,
        "e5m2": ml_dtypes.float8_e5m2,
    }
    x, y = source.view(types[src]), result.view(types[dst])
    return lambda: numpy.copyto(y, x, casting="unsafe")


def onnxruntime_cast(onnxruntime, source, src, dst, result):
    from onnx import TensorProto, helper

    types = {
        "f32": TensorProto.FLOAT,
        "bf16": TensorProto.BFLOAT16,
        "e4m3": TensorProto.FLOAT8E4M3FN,
        "e5m2": TensorProto.FLOAT8E5M2,
    }
    shape = [source.nbytes // BYTES[src]]
    node = helper.make_node("Cast", ["x"], ["y"], to=types[dst])
    graph = helper.make_graph(
        [node],
        "cast",
        [helper.make_tensor_value_info("x", types[src], shape)],
        [helper.make_tensor_value_info("y", types[dst], shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, types[src], shape, source.ctypes.data)
    binding.bind_output("y", "cpu", 0, types[dst], shape, result.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


PEERS = {"torch": torch_cast, "ml_dtypes": ml_dtypes_cast, "onnxruntime": onnxruntime_cast}


def measure(numpy, heed, modules, src, dst, n, rounds):
    random = numpy.random.default_rng(1)
    block = (random.standard_normal(min(n, 65536)) * 4).astype(numpy.float32)
    numbers = numpy.tile(block, n // block.size)
    source = turns.memory(numpy, n * BYTES[src])
    heed_cast(heed, "f32", src, n, numbers, source)()
    del numbers
    want = turns.memory(numpy, n * BYTES[dst], 2048)
    moved = (source.nbytes + want.nbytes) // 2
    a, b = turns.memory(numpy, moved), turns.memory(numpy, moved, 2048)
    a[:], b[:] = 1, 2
    problem = f"cast src={src} dst={dst} n={n}"
    runs = {
        "memcpy": lambda: numpy.copyto(b, a),
        "heed": heed_cast(heed, src, dst, n, source, want),
    }
    runs["heed"]()
    differ = {}
    for name, module in modules.items():
        result = turns.memory(numpy, want.nbytes, 2048)
        try:
            run = PEERS[name](module, source, src, dst, result)
            run()
        except Exception as error:  # a peer lacks this pair
            print(f"{problem}: {name} refuses: {str(error).splitlines()[0][:120]}")
            continue
        differ[name] = int((result != want).sum())
        runs[name] = run
    times = turns.time_in_turns(runs, rounds)
    rows = []
    for name, taken in times.items():
        row = {"prob": problem, "impl": name}
        row.update(median_ns=taken["median"], best_ns=taken["best"])
        row["of_memcpy"] = round(times["memcpy"]["median"] / taken["median"], 4)
        row["bytes_that_differ"] = differ.get(name, 0)
        rows.append(row)
    best = min((times[name]["median"] for name in differ), default=None)
    lead = best / times["heed"]["median"] if best else float("nan")
    rates = "  ".join(f"{row['impl']} {row['of_memcpy']:.3f}" for row in rows[1:])
    print(f"{problem}: of memcpy {rates}; heed {lead:.1f}x the best peer", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lib", required=True, help="libheed.so")
    parser.add_argument("--sizes", default="65536,33554432", help="elements")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--out", help="JSON file")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "HEED_NUM_THREADS"):
        os.environ[name] = "1"
    import numpy

    modules = turns.find_modules(PEERS)
    if "torch" in modules:
        modules["torch"].set_num_threads(1)
    heed = common.Heed(options.lib)
    rows = []
    for n in (int(size) for size in options.sizes.split(",")):
        for src, dst in PAIRS:
            rows += measure(numpy, heed, modules, src, dst, n, options.rounds)
    if options.out:
        turns.write_json(options.out, modules, rows, threads=1, clock="thread processor time")


if __name__ == "__main__":
    main()
