"""What a loop costs on the processor's pipes, and an in-order replay of it.

Everything is counted for one sub-partition, a quarter of a multiprocessor, in which each warpgroup
has one warp. docs/performance/machine-code.md says where the constants come from and which are
assumed."""
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Machine:
    name: str
    fma16: int  # 16-bit multiply-adds of the tensor cores a cycle
    mma_sync: float  # the part of them that mma.sync reaches
    fma: int  # cycles that an FP32 instruction holds its pipe


HOPPER = Machine("H100, H200", 512, 0.629, 1)
AMPERE = Machine("A100", 256, 1.0, 2)

# Kind, pipe and operations, the first that matches. Kinds of one name add up.
KINDS = [(kind, pipe, re.compile(rf"(?:{operations})(?:\.|$)")) for kind, pipe, operations in (
    ("MMA", "tensor", r"[HQI]G?MMA"),
    ("FFMA", "fma", r"FFMA"),
    ("FMUL", "fma", r"FMUL"),
    ("FADD", "fma", r"FADD|FSWZADD"),
    ("half", "fma", r"H(FMA|MUL|ADD)2(_MMA)?"),
    ("FMNMX", "alu", r"FMNMX3?"),
    ("EX2", "xu", r"MUFU\.EX2"),
    ("convert", "xu", r"MUFU|F2F|F2I|I2F|FRND|POPC|FLO|BREV"),
    ("pack", "alu", r"F2FP|I2FP"),
    ("compare", "alu", r"FSEL|[IF]SETP|SEL|PLOP3|FSET"),
    ("spill", "smem", r"LDL|STL"),
    ("memory", "smem", r"SHFL|LDS|STS|LDSM|STSM|ATOMS|LDG|STG|LDGSTS|LD|ST|RED|ATOMG"),
    ("sync", "issue", r"UTMA\w+|UBLK\w+|SYNCS|BAR|DEPBAR|LDGDEPBAR|WARPSYNC|WARPGROUP|FENCE|MEMBAR"
                      r"|NANOSLEEP|ELECT|BSSY|BSYNC|NOP|USETMAXREG|BRA|EXIT|CALL|RET|BRX"),
    ("constant", "issue", r"S2R|CS2R|U?LDC"),
    ("uniform", "uniform", r"U[A-Z0-9]+|R2UR|S2UR|VOTEU"),
    ("integer", "imad", r"IMAD|IDP|IMUL"),
    ("integer", "alu", r"\w+"))]

HOLDS = {"issue": 1, "imad": 2, "xu": 8, "uniform": 2, "alu": 2}  # cycles of the pipe, a warp
SMEM_BYTES = 128  # of shared memory a cycle, for all four sub-partitions

# Of the replay: cycles until a scoreboard is released, those that may wait in front of a pipe, and
# those from the end of a warpgroup's last MMA to the return of the wait for it.
LATENCY = {"MUFU": 18, "SHFL": 24, "LDS": 30, "LDSM": 33, "S2R": 20, "SYNCS": 20, "LDL": 35,
           "LDG": 500, "LDGSTS": 20, "LDC": 30, "F2F": 20, "F2I": 20}
LATENCY_OTHER, QUEUE, DRAIN = 12, {"xu": 8, "smem": 32}, 24


@cache
def classify(opcode, guard):
    """(kind, pipe) of an operation."""
    if guard in ("!PT", "!UPT"):  # padding
        return "idle", "issue"
    return next((kind, pipe) for kind, pipe, pattern in KINDS if pattern.match(opcode))


def kind(x):
    return classify(x.opcode, x.guard)[0]


def pipe(x):
    return classify(x.opcode, x.guard)[1]


# ---- tensor cores --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mma:
    fmas: float  # of one warp
    rate: float  # relative to 16 bits
    wgmma: bool
    commits: bool  # ends a group that can be waited for
    a_bytes: float  # that it reads of shared memory
    b_bytes: float


@cache
def decode_mma(opcode, operands):
    rate = 0.5 if "TF32" in opcode else 1 if opcode[0] == "H" else 2
    if shape := re.search(r"\.(\d+)x(\d+)x(\d+)\b", opcode):  # m64nNkK, of four warps
        m, n, k = map(int, shape.groups())
        in_shared = "gdesc" in operands.split(",")[1]
        return Mma(m * n * k / 4, rate, True, "gsb" in operands, in_shared * m * k * 2 / rate,
                   n * k * 2 / rate)
    k = int(re.search(r"\.168(\d+)\b", opcode).group(1))  # m16n8kK
    return Mma(16 * 8 * k, rate, False, False, 0, 0)


def mma(x):
    return decode_mma(x.opcode, x.operands) if pipe(x) == "tensor" else None


def awaited(x):
    """How many groups of MMAs may still run after this wait, None for what waits for none."""
    waits = x.opcode.startswith("WARPGROUP.DEPBAR")
    return int(x.operands.split(",")[-1], 16) if waits else None


# ---- pipes ---------------------------------------------------------------------------------------


def cost(x, machine, warpgroups):
    """(pipe, cycles of it a warp, cycles of shared memory for all four sub-partitions)"""
    where = pipe(x)
    if m := mma(x):
        rate = machine.fma16 * m.rate * (1 if m.wgmma else machine.mma_sync)
        # A warpgroup reads B for itself; the tile was written once for all of them.
        smem = (m.a_bytes + m.b_bytes * (1 + 1 / warpgroups)) / SMEM_BYTES
        return where, m.fmas / rate, smem
    if where == "smem":
        wide = re.search(r"\.(128|64)\b", x.opcode)
        waves = int(wide.group(1)) / 32 if wide else 1
        if x.name in ("LDSM", "STSM"):
            waves = {"2": 2, "4": 4}.get(x.opcode[-1], 1)
        return where, 4 * waves, 4 * waves
    return "fma" if where == "imad" else where, HOLDS.get(where, machine.fma), 0


def pipe_cycles(instructions, machine, warpgroups):
    """Cycles of each pipe that one warp of a sub-partition takes."""
    pipes = Counter(tensor=0, issue=len(instructions), xu=0, fma=0, alu=0, smem=0, uniform=0)
    for where, cycles, smem in (cost(x, machine, warpgroups) for x in instructions):
        pipes["smem"] += smem
        if where not in ("issue", "smem"):
            pipes[where] += cycles
    return pipes


def under_own_wgmma(loop):
    """The share of a loop's exponentials that are issued while a wgmma of their warp runs."""
    running, uncommitted, under, exps = 0, False, 0, 0
    for lap in (0, 1):  # the first only to begin the second with what runs across its start
        for x in loop:
            if m := mma(x):
                uncommitted = m.wgmma and not m.commits
                running += m.commits
            elif (left := awaited(x)) is not None:
                running = min(running, left)
            elif lap and kind(x) == "EX2":
                exps += 1
                under += uncommitted or running > 0
    return under / exps if exps else 0.0


# ---- replay --------------------------------------------------------------------------------------


class Warp:
    """Where a warp is in the loop, and when what it waits for is there."""

    def __init__(self, turn):
        self.at, self.time, self.begun, self.turn = 0, 0, 0, turn
        self.scoreboards, self.groups, self.laps = [0] * 8, [], []


class Replay:
    """Warps of one sub-partition that run a loop in order, memory always being there."""

    def __init__(self, loop, machine, warps, warpgroups, free_tensor=False):
        self.loop, self.free_tensor = loop, free_tensor
        self.costs = [cost(x, machine, warpgroups)[:2] for x in loop]
        self.mmas = [mma(x) for x in loop]
        bars = Counter(x.opcode[:7] for x in loop if x.name == "BAR")
        # One named barrier that is awaited and one that is arrived at: warpgroups take turns.
        self.turns = warps > 1 and bars["BAR.SYN"] == 1 and bars["BAR.ARV"] > 0
        self.warps = [Warp(None if self.turns and i else 0) for i in range(warps)]
        self.pipes, self.port = Counter(), 0

    def ready(self, warp):
        """When the warp's next instruction may issue, None while that is not known."""
        x, (where, _), m = self.loop[warp.at], self.costs[warp.at], self.mmas[warp.at]
        time = max([warp.time] + [warp.scoreboards[i] for i in range(6) if x.waits >> i & 1])
        if m:
            busy = warp.begun if m.wgmma else self.pipes["tensor"]
            return time if self.free_tensor else max(time, busy)
        if (left := awaited(x)) is not None:
            return max([time] + warp.groups[:len(warp.groups) - left][-1:])
        if self.turns and x.opcode.startswith("BAR.SYNC"):
            return None if warp.turn is None else max(time, warp.turn)
        return time if where == "issue" else max(time, self.pipes[where] - QUEUE.get(where, 0))

    def issue(self, number, time):
        warp = self.warps[number]
        x, (where, cycles), m = self.loop[warp.at], self.costs[warp.at], self.mmas[warp.at]
        begin, self.port = time, time + 1
        if where != "issue" and not (m and self.free_tensor):
            begin = max(time, self.pipes[where])
            self.pipes[where] = begin + cycles
        if m:
            warp.begun = begin
            if m.commits:
                warp.groups.append(0 if self.free_tensor else self.pipes["tensor"] + DRAIN)
        if x.sets:
            held = cycles if where == "smem" else 0
            warp.scoreboards[x.sets[0]] = begin + held + LATENCY.get(x.name, LATENCY_OTHER)
            read = max(warp.scoreboards[x.sets[1]], begin + LATENCY_OTHER)
            warp.scoreboards[x.sets[1]] = read
        if self.turns and x.opcode.startswith("BAR.SYNC"):
            warp.turn = None
        elif self.turns and x.opcode.startswith("BAR.ARV"):
            self.warps[(number + 1) % len(self.warps)].turn = time + 4
        warp.time, warp.at = time + x.stall, (warp.at + 1) % len(self.loop)
        if warp.at == 0:
            warp.laps.append(time)

    def run(self, laps=24):
        """Cycles of one lap, of the slowest warp, when it has become steady."""
        while any(len(warp.laps) < laps for warp in self.warps):
            choices = [(max(time, self.port), warp.time, i) for i, warp in enumerate(self.warps)
                       if (time := self.ready(warp)) is not None]
            time, _, number = min(choices)
            self.issue(number, time)
        skip = laps // 3
        return max((w.laps[laps - 1] - w.laps[skip]) / (laps - 1 - skip) for w in self.warps)
