"""Writes ``docs/api.md`` from the docstrings: ``python docs/api.py > docs/api.md``."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from typing import Any

HEADER = """\
# Reference

This page is generated from the docstrings by `python docs/api.py > docs/api.md`. `dflow.numpy` and `dflow.scipy` have
their own: [numpy.md](numpy.md); what `dflow.interop.torch` and `dflow.interop.jax` have is in [interop.md](interop.md).
"""

MODULES = (
    "dflow",
    "dflow.lax",
    "dflow.ops",
    "dflow.tree",
    "dflow.tree_util",
    "dflow.random",
    "dflow.nn",
    "dflow.image",
    "dflow.debug",
    "dflow.interop",
)


def document() -> str:
    """The whole page."""
    return "\n".join([HEADER, *map(_section, MODULES)])


def _section(name: str) -> str:
    module = importlib.import_module(name)
    found = [(n, getattr(module, n)) for n in module.__all__]
    entries = [_entry(name, n, x) for n, x in found if not inspect.ismodule(x)]
    return "\n".join([f"## {name}\n", _text(module), *entries])


def _entry(module: str, name: str, x: Any) -> str:
    lines = [f"### {module}.{name}\n", f"```text\n{name}{_signature(x)}\n```\n", _text(x)]
    if inspect.isclass(x):
        methods = {n: m for n, m in vars(x).items() if inspect.isfunction(m) and m.__doc__ and not n.startswith("_")}
        lines += [f"**`.{n}{_signature(m, own=True)}`** {_text(m)}" for n, m in methods.items()]
    return "\n".join(line for line in lines if line)


def _signature(x: Any, own: bool = False) -> str:
    if isinstance(x, enum.EnumType):  # Python's versions differ in the signature that they give
        return f": {', '.join(x.__members__)}"
    try:
        signature = inspect.signature(x)
    except (TypeError, ValueError):
        return "(...)"
    kept = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(kept[1:] if own else kept))


def _text(x: Any) -> str:
    """The docstring as Markdown."""
    text = inspect.getdoc(x) or ""
    blocks = re.sub(r"``([^`]*)``", r"`\1`", text)
    return f"{blocks}\n" if blocks else ""


if __name__ == "__main__":
    print(document(), end="")
