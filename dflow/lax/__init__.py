"""Control flow as functions, and functions of arrays: the names and signatures of ``jax.lax``."""

from __future__ import annotations

import importlib
from typing import Any

from dflow.lax.control import associative_scan as associative_scan
from dflow.lax.control import cond as cond
from dflow.lax.control import fori_loop as fori_loop
from dflow.lax.control import map as map
from dflow.lax.control import scan as scan
from dflow.lax.control import stop_gradient as stop_gradient
from dflow.lax.control import switch as switch
from dflow.lax.control import while_loop as while_loop

_CONTROL = ("associative_scan", "cond", "fori_loop", "map", "scan", "stop_gradient", "switch", "while_loop")
_PARTS = {  # they need dflow.numpy, and are loaded when one of their functions is used
    "arrays": (
        *("clamp", "dynamic_index_in_dim", "dynamic_slice", "dynamic_slice_in_dim", "dynamic_update_index_in_dim"),
        *("dynamic_update_slice", "dynamic_update_slice_in_dim", "integer_pow", "rsqrt", "select", "select_n", "top_k"),
    ),
    "names": (
        *("broadcast", "broadcast_in_dim", "concatenate", "convert_element_type", "cumlogsumexp", "cummax", "cummin"),
        *("cumprod", "cumsum", "div", "index_in_dim", "iota", "reshape", "rev", "slice", "slice_in_dim", "sort"),
        *("sort_key_val", "split", "tile", "argmax", "argmin", "broadcasted_iota", "optimization_barrier"),
        *("bitcast_convert_type", "broadcast_shapes", "collapse", "complex", "shift_right_arithmetic"),
        *("fft", "shift_right_logical", "stack", "unstack", "round", "Precision", "RoundingMethod"),
    ),
    "places": (
        *("GatherDimensionNumbers", "ScatterDimensionNumbers", "gather", "scatter", "scatter_add", "scatter_max"),
        *("scatter_min", "scatter_mul", "scatter_sub"),
    ),
    "padding": ("pad", "padtype_to_pads"),
    "convolutions": (
        *("conv", "conv_dimension_numbers", "conv_general_dilated", "conv_transpose", "conv_with_general_padding"),
        "ConvDimensionNumbers",
    ),
    "reductions": (
        *("batch_matmul", "dot_general", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or"),
        *("reduce_prod", "reduce_sum", "reduce_window", "reduce_xor"),
    ),
}
_COLLECTIVES = (
    *("all_gather", "all_to_all", "axis_index", "axis_size", "pmax", "pmean", "pmin", "ppermute", "psum"),
    "psum_scatter",
)
_PLACE = {name: f"dflow.lax.{part}" for part, names in _PARTS.items() for name in names}
_PLACE.update(dict.fromkeys(_COLLECTIVES, "dflow.transforms.collectives"))
_PLACE.update({"custom_linear_solve": "dflow.transforms.linear_rules", "custom_root": "dflow.transforms.implicit"})


def __getattr__(name: str) -> Any:
    if name in _PLACE:
        return getattr(importlib.import_module(_PLACE[name]), name)
    aliases = {} if name.startswith("_") else importlib.import_module("dflow.lax.names").ALIASES
    if name in aliases:
        return aliases[name]
    raise AttributeError(f"module 'dflow.lax' has no attribute {name!r}")


__all__ = [*_CONTROL, *_PLACE]
