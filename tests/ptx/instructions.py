"""Instructions of PTX as functions of a frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx.access import Run, atomic, convert_address, is_in_space, load, store
from ptx.arithmetic import elementwise
from ptx.faults import IllegalInstruction, Trap
from ptx.frames import Frame, Operands
from ptx.parser import Instruction
from ptx.values import Array, type_named


def compiled(i: Instruction, o: Operands) -> Run:
    """What an instruction does that neither branches nor waits."""
    try:
        run = _unguarded(i, o)
    except (KeyError, IndexError, ValueError) as e:
        raise IllegalInstruction(f"{i.text} ({type(e).__name__} {e})") from e
    if i.guard is None:
        return run
    guard = o.get(i.guard, type_named("pred"))

    def guarded(f: Frame) -> None:
        before = f.active
        taken = guard(f)
        if not np.count_nonzero(taken):
            return
        f.active = f.threads()[taken]
        run(f)
        f.active = before

    return guarded


def _unguarded(i: Instruction, o: Operands) -> Run:
    name = i.parts[0]
    if name in _SPECIAL:
        return _SPECIAL[name](i, o)
    found = elementwise(i.parts, len(i.operands))
    if found is None:
        raise IllegalInstruction(i.opcode)
    put = o.put(i.operands[0].partition("|")[0], found.result)
    gets = [o.number(x, t) for x, t in zip(i.operands[1:], found.sources, strict=True)]
    op, encode = found.run, found.result.encode
    if found.result.kind in ("b", "u", "pred"):
        if len(gets) == 2:
            a, b = gets
            return lambda f: put(f, op(a(f), b(f)))
        return lambda f: put(f, op(*[g(f) for g in gets]))
    if len(gets) == 2:
        a, b = gets
        return lambda f: put(f, encode(op(a(f), b(f))))
    return lambda f: put(f, encode(op(*[g(f) for g in gets])))


def _move(i: Instruction, o: Operands) -> Run:
    t = type_named(i.parts[-1])
    to, source = i.operands
    if source.startswith("{"):
        return _pack(i, o)
    if to.startswith("{"):
        return _unpack(i, o)
    put, get = o.put(to, t), o.get(source, t)
    return lambda f: put(f, get(f))


def _pack(i: Instruction, o: Operands) -> Run:
    whole = type_named(i.parts[-1])
    names = [x.strip() for x in i.operands[1].strip("{}").split(",")]
    part = type_named(f"b{whole.bits // len(names)}")
    put, gets = o.put(i.operands[0], whole), [o.get(x, part) for x in names]

    def run(f: Frame) -> None:
        out = np.zeros(len(f.threads()), whole.raw)
        for k, get in enumerate(gets):
            out |= get(f).astype(whole.raw) << whole.raw(k * part.bits)
        put(f, out)

    return run


def _unpack(i: Instruction, o: Operands) -> Run:
    whole = type_named(i.parts[-1])
    names = [x.strip() for x in i.operands[0].strip("{}").split(",")]
    part = type_named(f"b{whole.bits // len(names)}")
    get, puts = o.get(i.operands[1], whole), [o.put(x, part) for x in names]

    def run(f: Frame) -> None:
        value = get(f)
        for k, put in enumerate(puts):
            put(f, (value >> whole.raw(k * part.bits)).astype(part.raw))

    return run


def _carrying(i: Instruction, o: Operands) -> Run:
    """add.cc, addc, sub.cc, subc: numbers of several words."""
    t = type_named(f"u{i.parts[-1][1:]}")
    put, a, b = o.put(i.operands[0], t), o.get(i.operands[1], t), o.get(i.operands[2], t)
    subtract, takes, gives = i.opcode.startswith("sub"), i.parts[0][-1] == "c", "cc" in i.parts

    def run(f: Frame) -> None:
        x, y = a(f), b(f)
        one = f.carry[f.threads()].astype(t.raw) if takes else t.raw(0)
        if subtract:
            out = x - y - one
            over = (x < y) | ((x == y) & (one != 0))
        else:
            out = x + y + one
            over = (out < x) | ((out == x) & (one != 0))
        if gives:
            carry = f.carry.copy()
            carry[f.threads()] = over
            f.carry = carry
        put(f, out)

    return run


def _add(i: Instruction, o: Operands) -> Run:
    if "cc" in i.parts or i.parts[0] in ("addc", "subc"):
        return _carrying(i, o)
    found = elementwise(i.parts, len(i.operands))
    assert found is not None
    put, a, b = o.put(i.operands[0], found.result), *(o.number(x, found.result) for x in i.operands[1:])
    op, encode = found.run, found.result.encode
    return lambda f: put(f, encode(op(a(f), b(f))))


def _fence(i: Instruction, o: Operands) -> Run:
    """Writes of the block before it become visible to other blocks."""
    if "cta" in i.parts:
        return lambda f: None

    def run(f: Frame) -> None:
        t = f.run.threads
        t.time += 1
        t.fence_time[t.block[f.threads()]] = t.time

    return run


def _trap(i: Instruction, o: Operands) -> Run:
    def run(f: Frame) -> None:
        raise Trap("trap", 0)

    return run


def _activemask(i: Instruction, o: Operands) -> Run:
    put = o.put(i.operands[0], type_named("b32"))

    def run(f: Frame) -> None:
        t, lanes = f.run.threads, f.threads()
        masks = np.zeros(len(t.warp_time), np.uint32)
        np.bitwise_or.at(masks, t.warp[lanes], (1 << t.lane[lanes]).astype(np.uint32))
        put(f, masks[t.warp[lanes]])

    return run


def _call(i: Instruction, o: Operands) -> Run:
    """All active threads run the function to its end; parameters are copied there and back."""
    names = [x.strip("() ").replace(" ", "") for x in i.operands]
    returns = names[0].split(",") if i.operands[0].startswith("(") else []
    name, *given = names[1:] if returns else names
    args = [x for x in given[0].split(",") if x] if given else []
    layout = {x: o.function.variables[x] for x in (*args, *returns)}

    def run(f: Frame) -> None:
        external = f.run.machine.external.get(name)
        if external is not None:
            rows = f.params.rows(f.params.data)[f.threads()]
            for row in rows:
                at = [(o.symbols[x], layout[x].bytes) for x in args]
                external(*(int.from_bytes(row[start : start + size].tobytes(), "little") for start, size in at))
            return
        code = f.run.machine.code(name)
        lanes = f.active
        callee = Frame(code, f.run, lanes)
        threads = f.threads()
        for mine, theirs in zip(args, code.function.params):
            _copy_params(f, o.symbols[mine], callee, code.symbols[theirs.name], layout[mine].bytes, threads)
        f.run.execute(code, callee, lanes)
        callee.active = f.active = lanes
        for mine, theirs in zip(returns, code.function.returns):
            _copy_params(callee, code.symbols[theirs.name], f, o.symbols[mine], layout[mine].bytes, threads)

    return run


def _copy_params(source: Frame, start: int, target: Frame, to: int, count: int, threads: Array) -> None:
    a, b = source.params, target.params
    b.rows(b.data)[threads, to : to + count] = a.rows(a.data)[threads, start : start + count]
    b.rows(b.state)[threads, to : to + count] = a.rows(a.state)[threads, start : start + count]


_SPECIAL: dict[str, Callable[[Instruction, Operands], Run]] = {
    "mov": _move,
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "cvta": convert_address,
    "isspacep": is_in_space,
    "add": _add,
    "sub": _add,
    "addc": _carrying,
    "subc": _carrying,
    "membar": _fence,
    "fence": _fence,
    "trap": _trap,
    "activemask": _activemask,
    "call": _call,
    "nanosleep": lambda i, o: lambda f: None,
    "prefetch": lambda i, o: lambda f: None,
    "discard": lambda i, o: lambda f: None,
}
