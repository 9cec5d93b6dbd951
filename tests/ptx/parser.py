"""PTX text to functions of basic blocks.

Only what LLVM's NVPTX target writes is taken; anything else raises IllegalInstruction with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ptx.faults import IllegalInstruction

_NAME = r"[%\w$.]+"
_VARIABLE = re.compile(
    r"\.(?P<space>global|const|shared|local|param)\s+(?:\.attribute\([^)]*\)\s+)?(?:\.align\s+(?P<align>\d+)\s+)?"
    r"\.(?P<type>\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)?(?:\.align\s+\d+\s+)?)?"
    rf"(?P<name>{_NAME})\s*(?P<array>\[(?P<count>\d*)\])?\s*(?:=\s*(?P<value>.*))?$",
    re.DOTALL,
)
_REGISTERS = re.compile(rf"\.reg\s+\.(?P<type>\w+)\s+(?P<name>{_NAME}?)(?:<(?P<count>\d+)>)?$")
_BYTES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
_BYTES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8, "b128": 16}
# Instructions after which threads may go different ways, or wait for each other.
_ENDS = ("bra", "brx", "ret", "exit", "bar", "barrier", "shfl", "vote", "redux", "match", "elect")
_ATTRIBUTES = re.compile(r"\.(maxntid|reqntid|minnctapersm|maxnreg|noreturn|maxclusterrank)\b[^\n{;.]*")


@dataclass(frozen=True)
class Variable:
    """Memory with a name. ``count`` 0 is an array of a size given at launch. ``values``: elements, or symbols."""

    name: str
    space: str
    width: int
    count: int
    align: int
    values: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return self.width * self.count


@dataclass(frozen=True)
class Instruction:
    """``guard`` is the predicate register, with ``!`` before it when negated."""

    opcode: str
    operands: tuple[str, ...]
    line: int
    text: str
    guard: str | None = None

    @property
    def parts(self) -> list[str]:
        return self.opcode.split(".")


@dataclass
class Block:
    body: list[Instruction] = field(default_factory=list)


@dataclass
class Function:
    """``registers`` maps names to types; ``labels`` maps names to numbers of blocks."""

    name: str
    is_entry: bool
    params: list[Variable]
    returns: list[Variable]
    max_threads: int | None = None
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Module:
    version: str = ""
    target: str = ""
    variables: dict[str, Variable] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)


def parse(text: str) -> Module:
    """Raises IllegalInstruction for what is no PTX that LLVM writes."""
    module = Module()
    function: Function
    text = _without_comments(text)
    for kind, statement, line in _top_level(text):
        if statement.startswith(".version"):
            module.version = statement.split()[1]
        elif statement.startswith(".target"):
            module.target = statement.split()[1].rstrip(",")
        elif re.search(r"\.(entry|func)\b", statement):
            function = _header(statement, line)
            if kind == "body":
                module.functions[function.name] = function
            else:
                module.functions.setdefault(function.name, function)
        elif kind == "code":
            _Body(function).read(statement, line)
        elif not statement.startswith((".address_size", ".file", ".section")):
            v = _variable(statement, line)
            module.variables[v.name] = v
    return module


def _without_comments(text: str) -> str:
    blank = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", blank)


def _top_level(text: str) -> Iterator[tuple[str, str, int]]:
    """Statements as ("statement" or "body", text, line); a body follows its header as ("code", text, line)."""
    at, line = 0, 1
    while True:
        space = re.compile(r"\s*").match(text, at)
        assert space is not None
        line += space[0].count("\n")
        at = space.end()
        if at == len(text):
            return
        one_line = re.compile(r"\.(version|target|address_size|file|section)[^\n]*").match(text, at)
        if one_line:
            yield "statement", one_line[0].strip(), line
            at = one_line.end()
            continue
        end = _statement_end(text, at, line)
        statement = text[at:end].strip()
        if text[end] == ";":
            yield "statement", statement, line
            line += text[at:end].count("\n")
            at = end + 1
            continue
        yield "body", statement, line
        line += text[at:end].count("\n")
        close = _closing(text, end)
        yield "code", text[end + 1 : close], line
        line += text[end:close].count("\n")
        at = close + 1


def _statement_end(text: str, at: int, line: int) -> int:
    """Where a statement ends: at its ``;``, or at the ``{`` of a function's body."""
    initialised = False
    depth = 0
    for k in range(at, len(text)):
        c = text[k]
        if c == "=":
            initialised = True
        elif c == "{":
            if not initialised:
                return k
            depth += 1
        elif c == "}":
            depth -= 1
        elif c == ";" and depth == 0:
            return k
    raise IllegalInstruction(f"line {line}: a statement does not end")


def _closing(text: str, at: int) -> int:
    depth = 0
    for k in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[k], 0)
        if depth == 0:
            return k
    raise IllegalInstruction("a function's body does not end")


def _header(statement: str, line: int) -> Function:
    threads = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", statement)
    limit = None
    if threads:
        limit = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
    plain = _ATTRIBUTES.sub("", statement)
    m = re.search(
        rf"\.(entry|func)\s*(?:\((?P<returns>[^)]*)\))?\s*(?P<name>{_NAME})\s*(?:\((?P<params>[^)]*)\))?", plain
    )
    if m is None:
        raise IllegalInstruction(f"line {line}: {statement}")
    params, returns = (_variables(m[group], line) for group in ("params", "returns"))
    return Function(m["name"], m[1] == "entry", params, returns, limit)


def _variables(text: str | None, line: int) -> list[Variable]:
    return [_variable(part.strip(), line) for part in (text or "").split(",") if part.strip()]


def _variable(statement: str, line: int) -> Variable:
    plain = re.sub(r"^(\.(visible|extern|weak|common|internal)\s+)*", "", statement)
    m = _VARIABLE.match(" ".join(plain.split()))
    if m is None or m["type"] not in _BYTES:
        raise IllegalInstruction(f"line {line}: {statement}")
    width = _BYTES[m["type"]]
    count = 1 if m["array"] is None else int(m["count"] or 0)
    values = tuple(v for v in re.split(r"[,{}\s]+", m["value"] or "") if v)
    return Variable(m["name"], m["space"], width, count, int(m["align"] or width), values)


class _Body:
    """Reads the statements of one function into its blocks."""

    def __init__(self, function: Function):
        self.function = function
        function.blocks.append(Block())
        self.scopes: list[dict[str, str]] = []  # names of parameters of calls, which scopes use again
        self.scope_count = 0

    def read(self, text: str, line: int) -> None:
        for statement, at in self._statements(text, line):
            self._statement(statement, at)
        self.function.blocks[-1].body.append(Instruction("ret", (), line, "ret"))

    def _statements(self, text: str, line: int) -> Iterator[tuple[str, int]]:
        at = 0
        pattern = re.compile(r"\s*(?:(\.(?:loc|file)\b[^\n]*)|([{}])|([$\w.%]+)\s*:(?!:)|([^;]*);)", re.DOTALL)
        rest = re.compile(r"\s*\S")
        while rest.match(text, at):
            m = pattern.match(text, at)
            if m is None:
                raise IllegalInstruction(f"line {line}: {text[at : at + 60]}")
            start = line + text[at : m.start(m.lastindex or 0)].count("\n")
            if m[2]:
                self._scope(m[2])
            elif m[3]:
                self._label(m[3])
            elif m[4] is not None:
                yield " ".join(m[4].split()), start
            line += m[0].count("\n")
            at = m.end()

    def _scope(self, brace: str) -> None:
        if brace == "{":
            self.scope_count += 1
            self.scopes.append({})
        else:
            self.scopes.pop()

    def _label(self, name: str) -> None:
        if self.function.blocks[-1].body:
            self.function.blocks.append(Block())
        self.function.labels[name] = len(self.function.blocks) - 1

    def _statement(self, statement: str, line: int) -> None:
        f = self.function
        if statement.startswith(".reg"):
            self._registers(statement, line)
        elif statement.startswith(".branchtargets"):
            # The label before the table is not a place in the code.
            name = next(n for n, k in reversed(f.labels.items()) if k == len(f.blocks) - 1)
            f.tables[name] = [t.strip() for t in statement.removeprefix(".branchtargets").split(",")]
        elif statement.startswith((".pragma", ".callprototype")):
            pass
        elif statement.startswith("."):
            v = _variable(statement, line)
            if v.space == "param" and self.scopes:
                unique = f"{v.name}#{self.scope_count}"
                self.scopes[-1][v.name] = unique
                v = Variable(unique, v.space, v.width, v.count, v.align)
            f.variables[v.name] = v
        else:
            self._instruction(statement, line)

    def _registers(self, statement: str, line: int) -> None:
        m = _REGISTERS.match(statement)
        if m is None:
            raise IllegalInstruction(f"line {line}: {statement}")
        names = [m["name"]] if m["count"] is None else [f"{m['name']}{k}" for k in range(int(m["count"]))]
        self.function.registers.update(dict.fromkeys(names, m["type"]))

    def _instruction(self, statement: str, line: int) -> None:
        m = re.match(r"(?:@(!?%\w+)\s+)?([\w.:]+)\s*(.*)$", statement, re.DOTALL)
        if m is None:
            raise IllegalInstruction(f"line {line}: {statement}")
        operands = tuple(self._renamed(o) for o in _split(m[3]))
        made = Instruction(m[2].replace("::", "_"), operands, line, statement, m[1])
        self.function.blocks[-1].body.append(made)
        if made.parts[0] in _ENDS:
            self.function.blocks.append(Block())

    def _renamed(self, operand: str) -> str:
        for scope in self.scopes[::-1]:
            for name, unique in scope.items():
                operand = re.sub(rf"(?<![\w$%.]){re.escape(name)}(?![\w$#])", unique, operand)
        return operand


def _split(text: str) -> Sequence[str]:
    """Operands, at the commas outside of brackets."""
    out, depth, current = [], 0, ""
    for c in text:
        depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(c, 0)
        if c == "," and depth == 0:
            out.append(current.strip())
            current = ""
        else:
            current += c
    return [*out, current.strip()] if current.strip() else out
