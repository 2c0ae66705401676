"""The figures of one kernel: its main loop found, counted and timed."""
from collections import Counter

import model
from loops import find_loops

REGISTERS, THREADS = 65536, 2048  # of a multiprocessor
COLUMNS = ("FFMA", "EX2", "FADD", "FMNMX", "FMUL", "pack", "MMA", "uniform", "spill")


def counts(instructions):
    return Counter(model.kind(x) for x in instructions)


def names(instructions):
    return Counter(x.name for x in instructions)


def tensor_work(loop):
    return sum(m.fmas / m.rate for x in loop.own if (m := model.mma(x)))


def main_loop(loops):
    """The steady loop: of those with most tensor work the one with nothing but MMAs inside, with
    fewest tests and maxima (masked loops, and those of an exact fallback, have more), and shortest.
    Tests are counted by the quarter of an MMA's worth, so that no compiler's whim decides."""
    def rank(loop):
        kinds = counts(loop.own)
        tests = kinds["compare"] + kinds["FMNMX"]
        outer = any(tensor_work(inner) for inner in loop.inner)
        return -tensor_work(loop), outer, tests // (1 + len(loop.own) // 16), len(loop.own)
    return min((loop for loop in loops if tensor_work(loop)), key=rank, default=None)


def load_loop(loops):
    """The loop that fills the tiles for the others, None where the main loop does it itself. One
    that also works on them, say transposes V, takes pipes of its own."""
    loads = [(names(loop.own), loop) for loop in loops if not tensor_work(loop)]
    loads = [(n["LDSM"] + n["STSM"], -len(loop.own), loop) for n, loop in loads
             if n["UTMALDG"] + n["UBLKCP"] + n["LDGSTS"] + n["LDSM"] + n["STSM"]]
    return max(loads, key=lambda x: x[:2])[2] if loads else None


def profile(kernel, d=0, dv=0):
    """A dictionary of figures. d, dv: head sizes; without them one exponential is one element."""
    code, labels = kernel.disassemble()
    every, loops = names(code), find_loops(code, labels) if code else []
    figures = dict(name=kernel.name, symbol=kernel.symbol, architecture=kernel.architecture,
                   toolkit=kernel.toolkit, registers=kernel.registers, frame=kernel.frame,
                   spills=every["LDL"] + every["STL"])
    loop = main_loop(loops)
    return figures | measure(kernel, loop, loops, d, dv) if loop else figures


def measure(kernel, loop, loops, d, dv):
    own, machine = loop.own, model.HOPPER if kernel.architecture == 90 else model.AMPERE
    kinds, mmas = counts(own), [m for x in own if (m := model.mma(x))]
    wgmma, threads = any(m.wgmma for m in mmas), kernel.threads or 128
    # Warpgroups that compute, and those that load, which cost no issue slots worth counting.
    loads = load_loop(loops) if wgmma and threads > 128 and not names(own)["UTMALDG"] else None
    warpgroups = max(1, threads // 128 - bool(loads))
    blocks = min(REGISTERS // (-(-kernel.registers // 8) * 8 * threads or 1), THREADS // threads)
    warps = warpgroups * max(1, blocks)
    pipes = model.pipe_cycles(own, machine, warpgroups)
    softmax = max(len(own) - len(mmas), pipes["xu"], pipes["fma"], pipes["alu"])
    if loads and names(loads.own)["LDSM"] + names(loads.own)["STSM"]:
        helper = model.pipe_cycles(loads.own, machine, warpgroups)
        pipes.update({pipe: cycles / warpgroups for pipe, cycles in helper.items()})

    fmas, best = sum(m.fmas for m in mmas), tensor_work(loop) / machine.fma16
    limit = max(pipes.values())
    alone = model.Replay(own, machine, 1, warpgroups, free_tensor=True).run()
    lap = max(model.Replay(own, machine, warps, warpgroups).run(), limit * warps)
    elements = fmas / 32 / (d + dv) if d else kinds["EX2"] or 1
    parts = {kind: kinds[kind] / elements for kind in COLUMNS}
    return dict(
        elements=elements, length=len(own), instructions=len(own) / elements,
        parts=parts | {"rest": len(own) / elements - sum(parts.values())},
        mma=Counter(x.opcode for x in own if model.mma(x)), warps=warps,
        pipes={pipe: cycles for pipe, cycles in pipes.items()}, loop_spills=kinds["spill"],
        softmax_alone=alone, under_wgmma=model.under_own_wgmma(own) if wgmma else None,
        smem=pipes["smem"] / pipes["tensor"], overlapped=best / limit,
        serialised=best / (max(pipes["tensor"], pipes["smem"]) + softmax),
        replay=best * warps / lap, passed_over=sum(len(inner.own) for inner in loop.inner))
