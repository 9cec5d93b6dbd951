"""The C header of a library: what a C programmer needs to know to call it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dflow.backends.interface import by_value
from dflow.ir.types import Size, TensorType

if TYPE_CHECKING:
    from dflow.backends.native.library import Export

C_TYPES = {
    "bool": "uint8_t",
    **{f"i{n}": f"int{n}_t" for n in (8, 16, 32, 64)},
    **{f"u{n}": f"uint{n}_t" for n in (8, 16, 32, 64)},
    "f16": "dflow_f16",
    "bf16": "dflow_bf16",
    "f32": "float",
    "f64": "double",
    "c64": "float",
    "c128": "double",
}

PREFACE = """\
/* Made by dflow.
 *
 * Arrays are contiguous and row-major (the last index varies fastest). The caller owns all memory, that of the
 * arguments and that of the results. Arguments are only read, and may overlap each other; a result must overlap neither
 * an argument nor another result. Functions may be called from several threads at once.
 *
 * A function returns 0, or 1 after an error. Then the results are not to be used, and `error`, unless it is NULL, says
 * what happened: NAME_error_message(error->code) is a text, in which {0}, {1} and {2} stand for error->details[0..2].
 */"""

ERROR = """\
#ifndef DFLOW_ERROR
#define DFLOW_ERROR
typedef struct dflow_error {
    int64_t code;
    int64_t details[3];
} dflow_error;
#endif"""

HALF = """\
#ifndef DFLOW_F16
#define DFLOW_F16
__extension__ typedef _Float16 dflow_f16;
#endif"""


BFLOAT = """\
#ifndef DFLOW_BF16
#define DFLOW_BF16
typedef uint16_t dflow_bf16; /* a bfloat16: the upper 16 bits of the float of this value */
#endif"""


def typedefs(types: Sequence[TensorType]) -> list[str]:
    """Definitions of the element types that C does not have."""
    names = {t.dtype.name for t in types}
    return [text for name, text in (("f16", HALF), ("bf16", BFLOAT)) if name in names]


def header(name: str, exports: Sequence[Export]) -> str:
    guard = f"DFLOW_{re.sub('[^A-Za-z0-9]', '_', name).upper()}_H"
    types = [t for e in exports for t in (*e.plan.function.arg_types, *e.plan.function.result_types)]
    parts = [
        f"{PREFACE}\n#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>",
        ERROR,
        *typedefs(types),
        '#ifdef __cplusplus\nextern "C" {\n#endif',
        *(declaration(e) for e in exports),
        "#ifdef __cplusplus\n}\n#endif",
        f"#endif /* {guard} */\n",
    ]
    return "\n\n".join(parts)


def declaration(e: Export) -> str:
    f = e.plan.function
    args = list(zip(e.arg_names, f.arg_types))
    results = list(zip(e.result_names, f.result_types))
    parameters = [
        *(f"{C_TYPES[t.dtype.name]} {n}" if by_value(t) else f"const {C_TYPES[t.dtype.name]} *{n}" for n, t in args),
        *(f"{C_TYPES[t.dtype.name]} *{n}" for n, t in results),
        "dflow_error *error",
    ]
    width = max((len(n) for n, _ in [*args, *results]), default=0)
    lines = [f" *   {n:{width}}  in   {layout(t)}" for n, t in args]
    lines += [f" *   {n:{width}}  out  {layout(t)}" for n, t in results]
    comment = "\n".join([f"/* {e.name}", *lines, *_errors(e), " */"])
    signature = ",\n    ".join(parameters)
    message = f"const char *{e.name}_error_message(int64_t code);"
    return f"{comment}\nint32_t {e.name}(\n    {signature});\n{message}"


def _errors(e: Export) -> list[str]:
    return [f" *   error {code}: {_plain(c.error)}: {_plain(c.message)}" for code, c in enumerate(e.checks)]


def _plain(text: str) -> str:
    """Text that ends no comment."""
    return text.replace("*/", "* /").replace("\n", " ")


def layout(t: TensorType) -> str:
    """What lies in memory: ``f64[3, 4]: 12 elements, strides 4, 1``."""
    if t.is_scalar:
        return f"{t.dtype.name}{_remark(t)}"
    count, steps = 1, []
    for size in reversed(t.bound):
        steps.append(str(count))
        count *= size
    shape = ", ".join(f"up to {d.bound}" if isinstance(d, Size) else str(d) for d in t.shape)
    return f"{t.dtype.name}[{shape}]: {count} elements, strides {', '.join(reversed(steps))}{_remark(t)}"


def _remark(t: TensorType) -> str:
    return {"b": " (0 or 1)", "c": " (real part, imaginary part)"}.get(t.dtype.kind, "")
