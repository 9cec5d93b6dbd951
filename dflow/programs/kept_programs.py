"""Programs from one process to the next: machine code with all that it takes to call it, found without tracing.

    keep(key, executable, program)
    executable, program = recall(key, arguments, remake)      or None

An entry is a line of JSON that names the entry of the machine code (``backends/native/object_cache.py``). ``remake``
traces a program that was found, when somebody asks for its stages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from dflow import trees
from dflow.backends.native import object_cache
from dflow.backends.native.object_code import ObjectCode
from dflow.ir.core import Block, Function, Value
from dflow.ir.types import DTYPES, TensorType
from dflow.programs.executable import Executable
from dflow.programs.pipeline import Dump, Stages
from dflow.programs.program import Program
from dflow.programs.signature import Arguments
from dflow.programs.treecode import is_plain
from dflow.programs.trimming import Position, Trimming
from dflow.tracing.trace import Traced


def keep(key: str, executable: Executable, program: Program) -> None:
    """Writes the entry of a program, if another process can call it without more than that."""
    plain = program.returns_nothing or is_plain(program.out_spec)
    if executable.key is None or program.updates or program.traced.captured or not plain:
        return
    tree = trees.unflatten(program.out_spec, range(program.out_spec.num_leaves))
    try:
        facts = {
            "code": executable.key,
            "name": program.traced.function.name,
            "results": [(t.dtype.name, t.bound) for t in program.traced.function.result_types],
            "in_place": [*executable.stages.in_place.items()],
            "mutated": program.traced.mutated,
            "count": program.result_count,
            "tree": _tree_to_json(tree),
            "trim": program.trim and _trim_to_json(program.trim),
        }
    except TypeError:  # keys of a dict that JSON does not have
        return
    object_cache.write(object_cache.digest("program", key), json.dumps(facts).encode())


def recall(
    key: str, arguments: Arguments, remake: Callable[[], Function]
) -> tuple[Callable[..., Executable], Program] | None:
    """The program that was kept under ``key``, and what makes its executable as ``Executable`` does."""
    found = object_cache.read(object_cache.digest("program", key))
    facts = json.loads(found) if found else None
    code = object_cache.read(facts["code"]) if facts else None
    if facts is None or code is None:
        return None
    args = [Value(t.type) for t in arguments.types]
    results = [Value(TensorType(DTYPES[d], tuple(shape))) for d, shape in facts["results"]]
    signature = Function(facts["name"], Block(args, (), results))
    traced = Traced(signature, (), (), tuple((i, k) for i, k in facts["mutated"]), ())
    spec = trees.flatten(_tree_from_json(facts["tree"]))[1]
    trim = facts["trim"] and _trim_from_json(facts["trim"])
    program = Program(traced, spec, arguments.types, arguments, [], facts["count"], trim)
    stages = Stages(signature, Dump(None), dict(facts["in_place"]), remake, trim)
    return partial(Executable, stages, object=ObjectCode.from_bytes(code)), program


def _tree_to_json(tree: Any) -> Any:
    """Leaves are numbers; a container is a pair: which one, and its parts. TypeError for other keys of a dict."""
    if isinstance(tree, dict):
        if not all(type(k) in (str, int) for k in tree):
            raise TypeError
        return "dict", [(k, _tree_to_json(v)) for k, v in tree.items()]
    if isinstance(tree, tuple | list):
        return type(tree).__name__, [_tree_to_json(v) for v in tree]
    return tree


def _tree_from_json(tree: Any) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, parts = tree
    if kind == "dict":
        return {k: _tree_from_json(v) for k, v in parts}
    found = [_tree_from_json(v) for v in parts]
    return found if kind == "list" else tuple(found)


def _trim_to_json(trim: Trimming) -> Any:
    shapes = [s and [{"at": d.at} if isinstance(d, Position) else d for d in s] for s in trim.shapes]
    return shapes, trim.sizes


def _trim_from_json(read: Any) -> Trimming:
    shapes, sizes = read
    dims = [s and tuple(Position(d["at"]) if isinstance(d, dict) else d for d in s) for s in shapes]
    return Trimming(tuple(dims), sizes)
