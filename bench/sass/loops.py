"""Natural loops of a kernel. Compilers place what is rarely done, such as the slow side of a wait,
behind the loop that it belongs to: address ranges would not do."""
from dataclasses import dataclass

LEAVES = ("BRX", "JMX", "EXIT", "RET", "KILL")
JUMPS = LEAVES + ("BRA", "JMP")


@dataclass
class Loop:
    head: int  # index of its first instruction
    own: list  # instructions in the order of flow, without those of loops inside
    inner: list  # loops inside, of any depth


def blocks_of(code, labels):
    """Basic blocks as ranges of indices, and the numbers of those that follow each."""
    ends = (i + 1 for i, x in enumerate(code) if x.name in JUMPS)
    starts = sorted(i for i in {0, *labels.values(), *ends} if i < len(code))
    number = {start: n for n, start in enumerate(starts)}
    blocks = [range(a, b) for a, b in zip(starts, starts[1:] + [len(code)])]
    follow = []
    for n, block in enumerate(blocks):
        last = code[block[-1]]
        # A branch whose operands begin with a predicate may fall through as a guarded one may.
        stays = last.guard or not (last.name in LEAVES or
                                   last.target and last.operands.startswith("`"))
        jump = number.get(labels.get(last.target))
        follow.append([jump] * (jump is not None) + [n + 1] * bool(stays and n + 1 < len(blocks)))
    return blocks, follow


def flow_order(follow):
    """Blocks that can be reached, each before those that follow it but for loops."""
    order, seen, stack = [], {0}, [(0, iter(follow[0]))]
    while stack:
        block, rest = stack[-1]
        if (following := next(rest, None)) is None:
            order.append(block)
            stack.pop()
        elif following not in seen:
            seen.add(following)
            stack.append((following, iter(follow[following])))
    return order[::-1]


def dominators(order, before):
    """{block: set of the blocks that every way to it passes}"""
    known, changed = {order[0]: {order[0]}}, True
    while changed:
        changed = False
        for block in order[1:]:
            sets = [known[b] for b in before[block] if b in known]
            new = set.intersection(*sets) | {block}
            changed |= known.get(block) != new
            known[block] = new
    return known


def find_loops(code, labels):
    blocks, follow = blocks_of(code, labels)
    order = flow_order(follow)
    before = {block: [] for block in order}
    for block in order:
        for following in follow[block]:
            before[following].append(block)
    dominate = dominators(order, before)
    bodies = {}
    for latch in order:
        for head in follow[latch]:
            if head not in dominate[latch]:
                continue
            body, work = bodies.setdefault(head, {head}), [latch]
            while work:
                if (block := work.pop()) not in body:
                    body.add(block)
                    work += before[block]
    loops = {}
    for head, body in bodies.items():
        inside = [h for h, b in bodies.items() if h != head and b < body]
        rest = body.difference(*(bodies[h] for h in inside))
        own = [code[i] for block in order if block in rest for i in blocks[block]]
        loops[head] = Loop(blocks[head][0], own, inside)
    for loop in loops.values():
        loop.inner = [loops[h] for h in loop.inner]
    return sorted(loops.values(), key=lambda loop: loop.head)
