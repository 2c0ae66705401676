"""Whether figures got worse than those recorded, and what ptxas complained of.

A figure may move by its tolerance; one that the project promises (BARS in kernels.py) must stay
within its bar once it has been recorded there. Another toolkit than the recorded one makes other
code: then figures are only shown, while spills and warnings still fail."""
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import kernels
import sass

# Figure: (sign of what is worse, relative tolerance, absolute tolerance)
TOLERANCES = {"instructions": (1, 0.01, 0), "smem": (1, 0, 0.01), "under_wgmma": (-1, 0, 0.01),
              "serialised": (-1, 0, 0.01), "overlapped": (-1, 0, 0.01), "replay": (-1, 0, 0.01)}
SPILLS = ("loop_spills", "spills")
ROUNDING = 1e-9


# ---- what ptxas said -----------------------------------------------------------------------------


@dataclass
class Log:
    warnings: list = field(default_factory=list)  # (code, symbol)
    spills: dict = field(default_factory=dict)  # {symbol: {architecture: bytes}}


def read_log(path):
    """The output of nvcc -Xptxas -v, None where there is none."""
    path = Path(path)
    if not path.exists():
        return None
    log, architecture, symbol = Log(), "", ""
    for line in path.read_text(errors="replace").splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            symbol, architecture = match.groups()
        elif match := re.search(r"Function properties for (\S+)", line):
            symbol = match.group(1)
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            log.spills.setdefault(symbol, {})[architecture] = sum(map(int, match.groups()))
        # wgmma that are serialised (C7510 to C7519), setmaxnreg that is ignored (C7508).
        elif match := re.search(r"\((C75\d\d)\)", line):
            name = re.search(r"function '(\S+)'", line)
            log.warnings.append((match.group(1), name.group(1) if name else "a kernel"))
    return log


def spilled(logs):
    """{label: {architecture: bytes}} of the main kernels, those of 0 bytes left out."""
    found = {}
    for file, log in logs.items():
        for symbol, name in zip(log.spills, sass.demangle(list(log.spills))):
            known = kernels.identify(name, file)
            if known and known.main:
                found[known.label] = {a: n for a, n in log.spills[symbol].items() if n}
    return found


def compare_logs(logs, expected):
    """Complaints of what ptxas said for every architecture."""
    lines = [f"FAILED {file}: what ptxas said is not beside it; build it again"
             for file, log in logs.items() if log is None]
    logs = {file: log for file, log in logs.items() if log}
    for file, log in logs.items():
        lines += [f"FAILED {file}: ptxas warns of {code} in {symbol}"
                  for code, symbol in log.warnings]
    for label, architectures in spilled(logs).items():
        then = expected["kernels"].get(label, {}).get("spilled", {})
        for architecture, size in architectures.items():
            if size > then.get(architecture, 0):
                lines.append(f"FAILED {label}: {size} bytes spilled on {architecture}, recorded "
                             f"{then.get(architecture, 0)}")
    return lines


# ---- recorded figures ----------------------------------------------------------------------------


def load(path):
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else {"toolkit": "", "kernels": {}}


def by_label(results):
    """{label: figures} of the main kernels. A variant may be one of the library's own instances."""
    mains = [r for r in results if r["main"] and "length" in r]
    return {r["label"]: r for r in sorted(mains, key=lambda r: not r.get("variant"))}


def record(results, logs, path):
    mains = by_label(results).values()
    sizes = spilled({file: log for file, log in logs.items() if log})
    figures = {r["label"]: {name: round(r[name], 4) for name in (*TOLERANCES, *SPILLS)
                            if r[name] is not None} for r in mains}
    for label in figures:
        figures[label]["spilled"] = sizes.get(label, {})
    for r in (r for r in mains if r.get("variant")):
        figures[r["label"]]["variant"] = True
    # Builds without the variants keep what was recorded of them.
    for label, then in load(path)["kernels"].items():
        if then.get("variant"):
            figures.setdefault(label, then)
    toolkit = ", ".join(sorted({r["toolkit"] for r in mains}))
    Path(path).write_text(json.dumps({"toolkit": toolkit, "kernels": figures}, indent=1) + "\n")


def worse_by(name, now, then):
    """By how much more than is tolerated a figure is worse; negative or 0: it is not."""
    sign, relative, absolute = TOLERANCES[name]
    return sign * (now - then) - relative * abs(then) - absolute


def within(bar, figures):
    """Whether a figure is within its bar; a bar is met as it is printed, to a tenth of a point."""
    _, name, least, most = bar
    value = figures.get(name)
    return value is not None and least <= round(value, 3) <= most


def bar_text(bar):
    _, name, least, most = bar
    return f"{name} {'>=' if least else '<='} {least or most}"


def compare_kernel(r, then, same):
    """Lines about one main kernel; same: the toolkit is the recorded one."""
    lines, label, better = [], r["label"], False
    word = "FAILED" if same else "differs"
    for name in (name for name in TOLERANCES if name in then):
        if worse_by(name, r[name], then[name]) > ROUNDING:
            lines.append(f"{word} {label}: {name} {r[name]:.4g}, recorded {then[name]:.4g}")
        better |= worse_by(name, then[name], r[name]) > ROUNDING
    for name in SPILLS:
        if r[name] > then.get(name, 0):
            lines.append(f"FAILED {label}: {name} {r[name]}, recorded {then.get(name, 0)}")
    for bar in (bar for bar in kernels.BARS if re.search(bar[0], label)):
        if within(bar, r):
            continue
        lost = within(bar, then)
        lines.append(f"{word if lost else 'open'} {label}: {bar_text(bar)} is "
                     f"{'lost' if lost else 'not reached'}: {r[bar[1]]:.4g}")
    if better and not lines:
        lines.append(f"better {label}: bench/sass/report --record would write it down")
    return lines


def compare(results, logs, expected):
    """Lines about all main kernels; those of failures begin with FAILED."""
    mains = by_label(results)
    lines, recorded = compare_logs(logs, expected), expected["kernels"]
    for toolkit in sorted({r["toolkit"] for r in mains.values()} - {expected["toolkit"]}):
        lines.append(f"differs all: made by CUDA {toolkit}, recorded with {expected['toolkit']}")
    for label, r in mains.items():
        if label in recorded:
            lines += compare_kernel(r, recorded[label], r["toolkit"] == expected["toolkit"])
        else:
            lines.append(f"FAILED {label}: not recorded; bench/sass/report --record writes it down")
    return lines + [f"FAILED {label}: recorded, but not among the kernels now"
                    for label, then in recorded.items()
                    if label not in mains and not then.get("variant")]


def verdict(lines):
    """Prints them; 1 where something failed."""
    failed = sum(line.startswith("FAILED") for line in lines)
    print("\n".join([*lines, f"{failed} failures"]))
    return int(failed > 0)
