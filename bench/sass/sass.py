"""Machine code of compiled kernels: from object files to lists of instructions.

A cubin is an ELF file with one .text section a kernel. nvdisasm gives the text of an instruction;
what it leaves out, the control bits that say how long the next one waits and for whom, is read
from the section itself."""
import math
import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ELF_CUDA = 190
INSTRUCTION_BYTES = 16
CONTROL_SHIFT = 41  # in the upper half of an instruction
# Attributes of .nv.info sections.
REGISTERS, FRAME, MAX_THREADS, REQUIRED_THREADS = 0x2F, 0x11, 0x05, 0x10


class Missing(Exception):
    """A tool or a file that is not there: one sentence."""


def find_tool(name):
    """nvdisasm or cuobjdump: beside $HEED_NVDISASM, on PATH, or in the toolkit of the nvcc there."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    folders = [os.path.dirname(os.environ.get("HEED_NVDISASM", "")), os.environ.get("PATH", ""),
               os.path.dirname(os.path.realpath(nvcc))]
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if not found:
        raise Missing(f"{name} was not found; HEED_NVDISASM=/path/to/nvdisasm names it and the "
                      f"cuobjdump beside it; on PyPI: nvidia-cuda-nvdisasm, nvidia-cuda-cuobjdump")
    return found


# ---- instructions --------------------------------------------------------------------------------


@dataclass
class Instruction:
    text: str
    stall: int = 1  # cycles until the warp's next one may issue
    sets: tuple = ()  # scoreboards released when the result is there, when the operands were read
    waits: int = 0  # mask of scoreboards that must be released before
    guard: str = field(init=False)
    opcode: str = field(init=False)
    operands: str = field(init=False)

    def __post_init__(self):
        match = re.match(r"(?:@(!?U?P[T0-9]+)\s+)?([\w.]+)\s*(.*)", self.text)
        self.guard, self.opcode, self.operands = match.groups()

    @property
    def name(self):
        return self.opcode.split(".")[0]

    @property
    def target(self):
        """The label it may jump to. A BRA.DIV is for diverged warps and taken as never done."""
        match = re.search(r"`\((\.L_[\w.$]+)\)", self.operands)
        jumps = self.name in ("BRA", "JMP") and ".DIV" not in self.opcode
        return match.group(1) if match and jumps else None

    def control(self, word):
        bits = word >> CONTROL_SHIFT
        self.stall = max(1, bits & 15)
        self.sets = (bits >> 5 & 7, bits >> 8 & 7)
        self.waits = bits >> 11 & 63


def parse(listing, code=b""):
    """(instructions, {label: index of the instruction after it}) of one function's disassembly.
    code: its section, for the control bits."""
    instructions, labels = [], {}
    for line in listing.splitlines():
        if match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line):
            instruction = Instruction(match.group(2))
            if code:
                instruction.control(struct.unpack_from("<Q", code, int(match.group(1), 16) + 8)[0])
            instructions.append(instruction)
        elif match := re.match(r"(\.L_[\w.$]+):", line):
            labels[match.group(1)] = len(instructions)
    return instructions, labels


# ---- cubins --------------------------------------------------------------------------------------


@dataclass
class Kernel:
    """What a cubin says of one kernel."""
    symbol: str
    cubin: Path
    index: int  # of its symbol
    architecture: int
    toolkit: str
    code: bytes
    name: str = ""
    registers: int = 0
    frame: int = 0
    threads: int = 0

    def disassemble(self):
        command = [find_tool("nvdisasm"), "-c", "-fun", str(self.index), str(self.cubin)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"nvdisasm cannot read {self.cubin}: {done.stderr.strip()}")
        return parse(done.stdout, self.code)


class Elf:
    def __init__(self, data):
        self.data = data
        offset, self.flags = struct.unpack_from("<QI", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
        self.ranges = {self.text(headers[names][4] + h[0]): (h[4], h[5]) for h in headers}

    def text(self, at):
        return self.data[at:self.data.index(b"\0", at)].decode()

    def section(self, name):
        offset, size = self.ranges.get(name, (0, 0))
        return self.data[offset:offset + size]

    def symbols(self):
        strings, table = self.ranges[".strtab"][0], self.section(".symtab")
        return [self.text(strings + struct.unpack_from("<I", table, at)[0])
                for at in range(0, len(table), 24)]

    def attributes(self, name):
        """(attribute, value) of a .nv.info section. Only format 4 has a value of any length."""
        data, at = self.section(name), 0
        while at < len(data):
            form, attribute, size = struct.unpack_from("<BBH", data, at)
            at += 4
            if form == 4:
                yield attribute, data[at:at + size]
                at += size


def read_cubin(path):
    """The kernels of a cubin."""
    elf = Elf(Path(path).read_bytes())
    symbols, kernels = elf.symbols(), {}
    # The architecture moved up a byte in newer cubins.
    architecture = elf.flags & 255 if elf.flags & 255 >= 50 else elf.flags >> 8 & 255
    version = re.search(rb"release [\d.]+, V([\d.]+)", elf.data)
    for name in filter(lambda name: name.startswith(".text."), elf.ranges):
        symbol = name[len(".text."):]
        kernels[symbol] = Kernel(symbol, Path(path), symbols.index(symbol), architecture,
                                 version.group(1).decode() if version else "unknown",
                                 elf.section(name))
        for attribute, value in elf.attributes(".nv.info." + symbol):
            if attribute in (MAX_THREADS, REQUIRED_THREADS):
                kernels[symbol].threads = math.prod(struct.unpack_from("<III", value))
    for attribute, value in elf.attributes(".nv.info"):
        if attribute in (REGISTERS, FRAME):
            index, number = struct.unpack("<II", value)
            if kernel := kernels.get(symbols[index]):
                setattr(kernel, "registers" if attribute == REGISTERS else "frame", number)
    return list(kernels.values())


def extract(path, architecture, folder):
    """The cubins of a file: itself, or what cuobjdump finds in an object, put into folder."""
    head = Path(path).read_bytes()[:20]
    if head[:4] == b"\x7fELF" and struct.unpack_from("<H", head, 18)[0] == ELF_CUDA:
        return [Path(path)]
    into = tempfile.mkdtemp(dir=folder)
    command = [find_tool("cuobjdump"), "-xelf", architecture, os.path.abspath(path)]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"cuobjdump cannot read {path}: {done.stderr.strip()}")
    return sorted(Path(into).glob("*.cubin"))


def demangle(symbols):
    """Names as in the source, without parameters and the types of enumerators."""
    text = "\n".join(symbols)
    if symbols and shutil.which("c++filt"):
        text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True).stdout
    names = (re.sub(r"\([\w:]+\)(?=-?\d)", "", name) for name in text.split("\n"))
    return [re.sub(r"^void |\(.*$", "", name.replace("> >", ">>")) for name in names]
