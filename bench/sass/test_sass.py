"""Tests of bench/sass: the model on instructions that are written here, the check on figures that
are made worse on purpose, and the way from CUDA C to figures where nvcc and nvdisasm are there.

    python3 -B bench/sass/test_sass.py"""
import copy
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
import check
import kernels
import model
import profile
import sass
from loops import find_loops

QK = "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24"
PV = "HGMMA.64x64x16.F32.BF16 R88, R120, gdesc[UR16].tnspB, R88"
WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"


def listing(*lines):
    """As nvdisasm prints it; lines that begin with a dot are labels."""
    address, text = 0, []
    for line in lines:
        text.append(line if line[0] == "." else f"        /*{address:04x}*/      {line} ;")
        address += 0 if line[0] == "." else 16
    return "\n".join(text)


def instructions(*lines):
    return sass.parse(listing(*lines))[0]


class Fake(sass.Kernel):
    def __init__(self, *lines):
        super().__init__("fake", Path("fake.cubin"), 0, 90, "13.0.88", b"", "fake", 168, 0, 384)
        self.lines = lines

    def disassemble(self):
        return sass.parse(listing(*self.lines))


def steady(exps=64, before_wait=64, extra=(), each=()):
    """A loop with the tiles of head size 64: 4 MMAs of QK, 8 of PV, one exponential an element."""
    mmas = [QK] * 4 + [PV] * 7
    mmas = [x for m in mmas for x in (m, *each)] + [PV + ", gsb0"]
    exp = ["FFMA R1, R2, R3, R4", "MUFU.EX2 R1, R1"]
    packs = ["F2FP.BF16.F32.PACK_AB R1, R2, R3"] * 32
    return (".L_x_1:", *mmas, *exp * before_wait, WAIT, *exp * (exps - before_wait), *packs, *extra,
            "@P0 BRA `(.L_x_1)", "EXIT")


class Model(unittest.TestCase):
    def test_costs(self):
        qk, pv, fp8, ampere = instructions(QK, PV, "QGMMA.64x128x32.F32.E4M3.E4M3 R24, gdesc[UR8], "
                                           "R24, gsb0", "HMMA.16816.F32.BF16 R4, R8, R12, R4")
        self.assertEqual(model.cost(qk, model.HOPPER, 1), ("tensor", 64, 80))  # A, B, and B written
        self.assertEqual(model.cost(pv, model.HOPPER, 2), ("tensor", 32, 24))
        self.assertEqual(model.cost(fp8, model.HOPPER, 1)[1], 64)
        self.assertTrue(model.mma(fp8).commits)
        self.assertEqual(model.cost(ampere, model.AMPERE, 1), ("tensor", 8, 0))
        loads = instructions("LDSM.16.MT88.4 R4, [R8]", "LDS.128 R4, [R8]", "LDS R4, [R8]")
        self.assertEqual([model.cost(x, model.HOPPER, 1)[1] for x in loads], [16, 16, 4])
        self.assertEqual(model.pipe(instructions("@!UPT UIADD3 URZ, URZ, URZ, URZ")[0]), "issue")

    def test_kinds(self):
        opcodes = {"MUFU.EX2": "EX2", "MUFU.RCP": "convert", "FMNMX.FTZ": "FMNMX", "STL": "spill",
                   "R2UR": "uniform", "ULDC.64": "constant", "UTMALDG.4D": "sync", "HFMA2": "half",
                   "VIMNMX3": "integer", "IMAD.MOV.U32": "integer", "LDGSTS.E": "memory"}
        for opcode, kind in opcodes.items():
            self.assertEqual(model.classify(opcode, None)[0], kind, opcode)

    def test_control_bits(self):
        bits = 5 | 1 << 5 | 7 << 8 | 0b100 << 11
        x = sass.parse(listing("MOV R1, R2"), struct.pack("<QQ", 0, bits << 41))[0][0]
        self.assertEqual((x.stall, x.sets, x.waits), (5, (1, 7), 4))

    def test_replay(self):
        def lap(lines, warps, warpgroups=1):
            return model.Replay(instructions(*lines), model.HOPPER, warps, warpgroups).run()
        exps = ["MUFU.EX2 R1, R2"] * 8
        self.assertEqual(lap(exps, 1), 64)
        self.assertEqual(lap(exps, 2), 128)
        turns = [QK + ", gsb0", WAIT] + ["FFMA R1, R2, R3, R4"] * 64
        self.assertAlmostEqual(lap(turns, 1), 64 + model.DRAIN + 65, delta=4)
        self.assertAlmostEqual(lap(turns, 2, 2), 64 + model.DRAIN + 65, delta=6)  # and two hide it

    def test_loops(self):
        code, labels = sass.parse(listing(
            "MOV R1, R2", ".L_x_1:", "FFMA R1, R2, R3, R4", "@P1 BRA `(.L_x_2)", ".L_x_3:",
            "MUFU.EX2 R5, R6", "@P0 BRA `(.L_x_1)", "EXIT", ".L_x_2:", "NOP",
            "@P2 BRA `(.L_x_2)", "BRA `(.L_x_3)"))
        outer, inner = find_loops(code, labels)
        self.assertEqual([x.name for x in outer.own], ["FFMA", "BRA", "BRA", "MUFU", "BRA"])
        self.assertEqual([x.name for x in inner.own], ["NOP", "BRA"])
        self.assertEqual(outer.inner, [inner])


class Profile(unittest.TestCase):
    def test_counts(self):
        r = profile.profile(Fake(*steady()), 64, 64)
        self.assertEqual(r["elements"], 64)
        self.assertEqual(r["length"], 12 + 128 + 1 + 32 + 1)
        self.assertEqual(r["parts"]["EX2"], 1)
        self.assertEqual(r["parts"]["pack"], 0.5)
        self.assertEqual(r["pipes"]["tensor"], 512)
        self.assertEqual(r["pipes"]["xu"], 512)
        self.assertEqual((r["under_wgmma"], r["loop_spills"]), (1, 0))
        self.assertEqual(r["serialised"], 0.5)
        self.assertEqual(r["overlapped"], 1)

    def test_steady_loop_is_chosen(self):
        masked = [line.replace("_1", "_9") for line in steady(extra=["FSEL R1, R2, R3, P0"] * 64)]
        r = profile.profile(Fake(*masked[:-1], *steady()), 64, 64)
        self.assertEqual(r["parts"]["rest"], 2 / 64)

    def test_late_exponentials_show(self):
        r = profile.profile(Fake(*steady(before_wait=16)), 64, 64)
        self.assertEqual(r["under_wgmma"], 0.25)

    def test_serialised_wgmma_shows(self):
        each = [", gsb0"]
        lines = [line + each[0] if line.startswith("HGMMA") and "gsb0" not in line else line
                 for line in steady(before_wait=0, each=[WAIT])]
        r, good = (profile.profile(Fake(*x), 64, 64) for x in (lines, steady()))
        self.assertEqual(r["under_wgmma"], 0)
        self.assertLess(r["replay"], good["replay"] - 0.1)

    def test_spill_shows(self):
        r = profile.profile(Fake(*steady(extra=["STL [R1], R2", "LDL R2, [R1]"])), 64, 64)
        self.assertEqual((r["loop_spills"], r["spills"]), (2, 2))


LABEL = "some hd128 bf16"
SYMBOL = "_Z4some"
BAR = ("some hd128", "serialised", 0.71, 1)


class Check(unittest.TestCase):
    def setUp(self):
        self.then = dict(label=LABEL, symbol=SYMBOL, main=True, toolkit="13.0.88", length=9,
                         instructions=5.0, smem=0.84, under_wgmma=1.0, serialised=0.715,
                         overlapped=1.0, replay=1.0, loop_spills=0, spills=0)
        self.logs = {"some.cu.o": check.Log()}
        with tempfile.TemporaryDirectory() as folder:
            check.record([self.then], self.logs, Path(folder) / "e.json")
            self.expected = check.load(Path(folder) / "e.json")
        known = kernels.Known(LABEL, 128, 128, True)
        for what, value in (("BARS", (BAR,)), ("identify", lambda *_: known)):
            patch = mock.patch.object(kernels, what, value)
            patch.start()
            self.addCleanup(patch.stop)

    def failures(self, **changes):
        lines = check.compare([self.then | changes], self.logs, self.expected)
        with mock.patch("builtins.print"):
            failed = check.verdict(lines)
        lines = [line for line in lines if line.startswith("FAILED")]
        self.assertEqual(bool(lines), bool(failed))
        return len(lines)

    def test_same_passes(self):
        self.assertEqual(self.failures(), 0)
        self.assertEqual(self.failures(instructions=5.04, under_wgmma=0.991), 0)

    def test_worse_fails(self):
        for worse in (dict(instructions=5.06), dict(smem=0.86), dict(under_wgmma=0.98),
                      dict(replay=0.98), dict(spills=1), dict(loop_spills=4)):
            self.assertEqual(self.failures(**worse), 1, worse)

    def test_bars(self):
        self.assertEqual(self.failures(serialised=0.709), 1)  # within its tolerance
        self.assertEqual(self.failures(serialised=0.7095), 0)
        self.expected["kernels"][LABEL]["serialised"] = 0.7
        self.assertEqual(self.failures(serialised=0.7), 0)  # never reached: said, not failed

    def test_other_toolkit(self):
        self.expected["toolkit"] = "12.4.99"
        self.assertEqual(self.failures(instructions=9, serialised=0.1), 0)
        self.assertEqual(self.failures(spills=2), 1)

    def test_kernels_come_and_go(self):
        self.assertEqual(self.failures(label="another"), 2)

    def test_variants(self):
        variant = self.then | dict(label="variant", variant=True, instructions=4.0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "e.json"
            check.record([self.then, variant], self.logs, path)
            self.expected = check.load(path)
            self.assertEqual(self.failures(), 0)  # a build without variants
            check.record([self.then], self.logs, path)
            self.assertEqual(check.load(path), self.expected)
        lines = check.compare([self.then, variant | dict(instructions=4.1)], self.logs,
                              self.expected)
        self.assertEqual(sum("FAILED variant: instructions" in line for line in lines), 1)
        own = check.by_label([variant | dict(label=LABEL), self.then])
        self.assertEqual(own[LABEL]["instructions"], 5.0)

    def log(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
            file.write(text)
            file.flush()
            self.logs["some.cu.o"] = check.read_log(file.name)

    def test_ptxas(self):
        self.log(f"ptxas info    : Compiling entry function '{SYMBOL}' for 'sm_80'\n"
                 f"ptxas info    : Function properties for {SYMBOL}\n"
                 f"    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n")
        self.assertEqual(self.failures(), 0)
        self.log(f"ptxas info    : Compiling entry function '{SYMBOL}' for 'sm_80'\n"
                 f"ptxas info    : Function properties for {SYMBOL}\n"
                 f"    32 bytes stack frame, 96 bytes spill stores, 96 bytes spill loads\n")
        self.assertEqual(self.logs["some.cu.o"].spills, {SYMBOL: {"sm_80": 192}})
        self.assertEqual(self.failures(), 1)
        self.expected["kernels"][LABEL]["spilled"] = {"sm_80": 192}
        self.assertEqual(self.failures(), 0)
        for code in ("C7508", "C7510", "C7512", "C7517", "C7519"):
            self.log(f"ptxas info    : ({code}) Potential Performance Loss: wgmma.mma_async "
                     f"instructions are serialized due to x in the function '_Z5other'\n")
            self.assertEqual(self.failures(), 1, code)
        self.logs["some.cu.o"] = check.read_log("/nowhere.log")
        self.assertEqual(self.failures(), 1)


SOURCE = r"""
__global__ void __launch_bounds__(THREADS) some(const unsigned *x, float *y, int n)
{
    float c[16][4] = {};
    unsigned a[4] = {x[threadIdx.x], x[threadIdx.x + 128], x[threadIdx.x + 256], x[7]};
#pragma unroll 1
    for (int i = 0; i < n; i++)
#pragma unroll
        for (int j = 0; j < 16; j++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                         "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[j & 3]), "r"(a[1]));
#pragma unroll
    for (int j = 0; j < 64; j++)
        y[j * 128 + threadIdx.x] = c[j / 4][j % 4];
}
"""


def tools():
    try:
        return shutil.which("nvcc") and sass.find_tool("nvdisasm")
    except sass.Missing:
        return None


@unittest.skipUnless(tools(), "no nvcc or no nvdisasm")
class Compiled(unittest.TestCase):
    def report(self, *flags):
        with tempfile.TemporaryDirectory() as folder:
            source, cubin = Path(folder) / "some.cu", Path(folder) / "some.cubin"
            source.write_text(SOURCE)
            command = ["nvcc", "-arch=sm_80", "-cubin", "-Xptxas=-v", *flags, source, "-o", cubin]
            built = subprocess.run(command, capture_output=True, text=True, check=True)
            cubin.with_suffix(".log").write_text(built.stderr)
            done = subprocess.run([Path(__file__).with_name("report"), cubin, "--json",
                                   "--head-dim", "64"], capture_output=True, text=True, check=True)
            return json.loads(done.stdout)[0], check.read_log(cubin.with_suffix(".log"))

    def test_figures(self):
        r, log = self.report("-DTHREADS=128")
        self.assertEqual(r["mma"], {"HMMA.16816.F32.BF16": 16})
        self.assertEqual((r["pipes"]["tensor"], r["elements"], r["spills"]), (128, 8, 0))
        self.assertEqual(list(log.spills.values()), [{"sm_80": 0}])

    def test_spills(self):
        r, log = self.report("-DTHREADS=1024")
        self.assertGreater(r["loop_spills"], 0)
        self.assertGreater(list(log.spills.values())[0]["sm_80"], 0)


if __name__ == "__main__":
    unittest.main()
