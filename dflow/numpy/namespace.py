"""The public names of ``dflow.numpy``. To import this module fills the tables of ``dflow.numpy.dispatch``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as _np

from dflow.numpy import (
    LATER,
    composed,
    counting,
    creation,
    elementwise,
    introspection,
    joining,
    keywords,
    limits,
    math_functions,
    miscellany,
    padding,
    partial_orders,
    polynomials,
    products,
    quantiles,
    reductions,
    running,
    selection,
    sets,
    shapes,
    sorting,
    statistics,
    ufunc_methods,
)
from dflow.numpy import cmath_functions as cmath_functions
from dflow.numpy import grids as grids
from dflow.numpy import index_tricks as index_tricks
from dflow.numpy import linalg as linalg

EXPORTED: dict[str, Any] = dict(elementwise.PUBLIC)
for _module in (
    elementwise,
    reductions,
    statistics,
    running,
    shapes,
    joining,
    products,
    composed,
    partial_orders,
    sorting,
    sets,
    counting,
    quantiles,
    selection,
    padding,
    miscellany,
    polynomials,
    creation,
    introspection,
):
    for _name, _f in vars(_module).items():
        if (
            (hasattr(_np, _name) or _name in LATER)
            and getattr(_f, "__module__", None) == _module.__name__
            and hasattr(_f, "__wrapped__")
        ):
            EXPORTED[_name] = _f
for _alias, _name in (
    ("amax", "max"),
    ("amin", "min"),
    ("around", "round"),
    ("permute_dims", "transpose"),
    ("concat", "concatenate"),
    ("asanyarray", "asarray"),
    ("ascontiguousarray", "asarray"),
    ("may_share_memory", "shares_memory"),
    ("row_stack", "vstack"),
):
    EXPORTED[_alias] = EXPORTED[_name]
for _name, _more in keywords.KEYWORDS.items():
    EXPORTED[_name] = _more(EXPORTED[_name])
    setattr(sys.modules[EXPORTED[_name].__module__], _name, EXPORTED[_name])  # what its name leads to
EXPORTED["topk"] = partial_orders.topk
LIMITS = {name: getattr(limits, name) for name in ("finfo", "iinfo", "isdtype")}

__all__ = ["EXPORTED", "LIMITS", "math_functions", "ufunc_methods"]
