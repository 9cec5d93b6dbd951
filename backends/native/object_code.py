"""Machine code of one function before it is loaded, and how it is kept as bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from dflow.backends.interface import Check
from dflow.ir.core import Location


@dataclass(frozen=True)
class ObjectCode:
    """It refers to the process by symbols alone, so it serves in another one too.

    ``wanted`` are the symbols to look up after loading; ``shared`` and ``imports`` those to provide: functions of
    `shared_code`, and others. ``checks`` and ``release`` are those of `Emitted`.
    """

    name: str
    code: bytes
    checks: tuple[Check, ...]
    wanted: tuple[str, ...]
    shared: tuple[str, ...]
    imports: tuple[str, ...]
    release: str | None

    def to_bytes(self) -> bytes:
        """A line of JSON, then the code."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("code", "checks")}
        return json.dumps(head | {"checks": [asdict(c) for c in self.checks]}).encode() + b"\n" + self.code

    @staticmethod
    def from_bytes(data: bytes) -> ObjectCode:
        head, _, code = data.partition(b"\n")
        read: dict[str, Any] = json.loads(head)
        checks = tuple(Check(**(c | {"location": _location(c["location"])})) for c in read.pop("checks"))
        names: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
        return ObjectCode(code=code, checks=checks, **names)


def _location(read: dict[str, Any] | None) -> Location | None:
    return None if read is None else Location(**(read | {"caller": _location(read["caller"])}))
