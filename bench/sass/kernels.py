"""The project's kernels: what their template arguments mean, and what they have to reach.

A kernel that is not listed here is reported too, if it has MMAs: --head-dim says the rest."""
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    file: str  # src/cuda/FILE.cu and FILE_*.cu
    pattern: str  # of the demangled name, with groups: d, dv, and what the label names
    label: str
    words: dict  # {group: {value: word in the label}}
    main: str = "."  # pattern of labels of the instances that the library chooses by itself


def architecture_of(file):
    """The machine code of a file that is worth reading."""
    return "sm_80" if "sm80" in file else "sm_90a"


TYPES = {"0": "bf16", "1": "f16", "2": "e4m3"}  # of hd_mma_type
ROWS = {"1": "64", "2": "128", "3": "192"}  # of so many warpgroups
BF16 = {"true": "bf16", "false": "f16"}
TURNS, TILES = {"true": "turns", "false": ""}, {"true": "tiles", "false": ""}

FAMILIES = (
    Family("flash_sm90",
           r"::config<(?P<type>\d+), (?P<d>\d+), (?P<keys>\d+), (?P<rows>\d+), (?P<mode>\d+), "
           r"(?P<poly>\d+), (?P<turns>\w+), (?P<tiles>\w+)",
           "hd{d} {type} {rows}x{keys} {mode} poly{poly} {turns} {tiles}",
           {"type": TYPES, "rows": ROWS, "mode": {"0": "exact", "1": "bound", "2": "sum"},
            "turns": TURNS, "tiles": TILES}, main=r"^(?!.*tiles)"),
    Family("flash_sm90_fp8",
           r"fp8_config<(?P<d>\d+), (?P<keys>\d+), (?P<rows>\d+), (?P<piece>\d+), "
           r"(?P<flush>\d+), (?P<poly>\d+), (?P<turns>\w+), (?P<tiles>\w+)",
           "hd{d} e4m3 {rows}x{keys} flush{flush} poly{poly} {turns} {tiles}",
           {"rows": ROWS, "turns": TURNS, "tiles": TILES}, main=r"^(?!.*tiles)"),
    Family("flash_sm80",
           r"config<(?P<type>\w+), (?P<d>\d+), (?P<dv>\d+), (?P<warps>\d+), (?P<rows>\d+)>",
           "hd{d}/{dv} {type} {warps} warps of {rows}",
           {"type": BF16, "rows": {"1": "16", "2": "32"}}),
    # Of these only spills count: they wait for memory, of which the model knows nothing.
    Family("decode_sm80", r"attend<(?P<type>\w+), (?P<dim>\d+)>", "hd{dim} {type}",
           {"type": BF16}),
    Family("decode_sm90", r"attend<(?P<type>\w+), (?P<dim>\d+)>", "hd{dim} {type}",
           {"type": BF16}),
)

# Label pattern, figure, its least, its most. A bar binds an instance once its
# recorded figures reach it.
BARS = (
    (r"flash_sm90 hd128 bf16 128x176 sum poly16 turns", "serialised", 0.71, 1),
    (r"flash_sm90 hd128 bf16 128x176 sum poly16 turns", "under_wgmma", 0.9, 1),
    (r"flash_sm90 hd128 bf16 128x176 sum poly16 turns", "smem", 0, 0.85),
    (r"flash_sm90 hd128 bf16 128x176 sum poly16 turns", "replay", 1, 1),
    (r"flash_sm90 hd128 bf16 128x176 (bound|sum) poly0 turns", "instructions", 0, 5),
    (r"flash_sm90 hd128 bf16 128x176 bound poly0 turns", "under_wgmma", 0.9, 1),
    (r"flash_sm90 hd64 bf16 192x128 sum poly16 turns", "serialised", 0.55, 1),
    (r"flash_sm90 hd256 bf16 128x80 sum poly8 turns", "serialised", 0.8, 1),
    (r"flash_sm90.* hd128 e4m3", "serialised", 0.52, 1),
    (r"flash_sm80 hd128/128 bf16", "instructions", 0, 13),
    (r"flash_sm", "loop_spills", 0, 0))


@dataclass(frozen=True)
class Known:
    label: str
    d: int  # head size of queries and keys, 0: the model does not apply
    dv: int
    main: bool
    variant: bool = False  # of a tuning build only (FILE_tune_*.cu)


def identify(name, file):
    """What is known of a kernel by its demangled name and its object or cubin, None of a stranger.
    A file whose name is none of theirs may hold any of them."""
    of_file = [family for family in FAMILIES if file.startswith(family.file)]
    longest = sorted(of_file, key=lambda family: -len(family.file))[:1]
    for family in longest or FAMILIES:
        if match := re.search(family.pattern, name):
            groups = {k: v for k, v in match.groupdict().items() if v is not None}
            words = {k: family.words.get(k, {}).get(v, v) for k, v in groups.items()}
            label = re.sub(r"\s+", " ", f"{family.file} {family.label.format(**words)}").strip()
            d = int(groups.get("d", 0))
            return Known(label, d, int(groups.get("dv", d)), bool(re.search(family.main, label)),
                         "_tune" in file)
    return None
