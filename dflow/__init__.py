"""dflow: a compiler for differentiable programming in Python."""

import importlib as _importlib
import pathlib as _pathlib

# In a source tree (editable install, or started from the repository root) `ir` and `backends` stand beside this
# package, not inside it; an installed wheel has them inside.
if not (_pathlib.Path(__file__).parent / "ir").is_dir():
    __path__.append(str(_pathlib.Path(__file__).parent.parent))

from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from dflow import checkpoint_policies, debug, image, lax, ops, tree, tree_util
    from dflow.api import grad, jit, jvp, linear_transpose, linearize, value_and_grad, vjp
    from dflow.backends.native.threads import set_threads, threads
    from dflow.check import check_grads
    from dflow.devices.array import Array, from_dlpack
    from dflow.devices.placement import default_device, device_put
    from dflow.devices.streams import Stream
    from dflow.export import compile_library
    from dflow.records import field, register, struct
    from dflow.shapes import ShapeDtypeStruct, eval_shape
    from dflow.solvers import fixed_point, odeint
    from dflow.tracing.python.printing import print
    from dflow.transforms.batching import vmap
    from dflow.transforms.custom import (
        custom_gradient,
        custom_jvp,
        custom_vjp,
        register_jvp,
        register_vjp,
        stop_gradient,
    )
    from dflow.transforms.implicit import custom_root
    from dflow.transforms.jacobians import hessian, hvp, jacfwd, jacobian, jacrev
    from dflow.transforms.linear_rules import closure_convert, custom_linear_solve, custom_transpose
    from dflow.transforms.recompute import checkpoint, checkpoint_name, remat
    from dflow.transforms.sparse import sparse_hessian, sparse_jacobian
    from dflow.tree import ravel_pytree

__version__ = "0.1.0"

__all__ = [
    "Array",
    "ShapeDtypeStruct",
    "Stream",
    "check_grads",
    "checkpoint",
    "checkpoint_name",
    "checkpoint_policies",
    "closure_convert",
    "compile_library",
    "custom_gradient",
    "custom_jvp",
    "custom_linear_solve",
    "custom_root",
    "custom_transpose",
    "custom_vjp",
    "debug",
    "default_device",
    "device_put",
    "eval_shape",
    "field",
    "fixed_point",
    "from_dlpack",
    "grad",
    "hessian",
    "hvp",
    "image",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jit",
    "jvp",
    "lax",
    "linear_transpose",
    "linearize",
    "odeint",
    "ops",
    "print",
    "ravel_pytree",
    "register",
    "register_jvp",
    "register_vjp",
    "remat",
    "set_threads",
    "sparse_hessian",
    "sparse_jacobian",
    "stop_gradient",
    "struct",
    "threads",
    "tree",
    "tree_util",
    "value_and_grad",
    "vjp",
    "vmap",
]

# What is imported when it is asked for: modules, and the names of others.
_MODULES = (
    *("checkpoint_policies", "debug", "errors", "image", "interop", "lax", "nn", "numpy", "ops", "random", "scipy"),
    *("tree", "tree_util"),
)
_PLACES = {
    "dflow.api": ("grad", "jit", "jvp", "linear_transpose", "linearize", "value_and_grad", "vjp"),
    "dflow.backends.native.threads": ("set_threads", "threads"),
    "dflow.transforms.batching": ("vmap",),
    "dflow.check": ("check_grads",),
    "dflow.transforms.custom": (
        "custom_gradient",
        "custom_jvp",
        "custom_vjp",
        "register_jvp",
        "register_vjp",
        "stop_gradient",
    ),
    "dflow.devices.array": ("Array", "from_dlpack"),
    "dflow.export": ("compile_library",),
    "dflow.transforms.implicit": ("custom_root",),
    "dflow.transforms.jacobians": ("hessian", "hvp", "jacfwd", "jacobian", "jacrev"),
    "dflow.transforms.linear_rules": ("closure_convert", "custom_linear_solve", "custom_transpose"),
    "dflow.devices.placement": ("default_device", "device_put"),
    "dflow.transforms.recompute": ("checkpoint", "checkpoint_name", "remat"),
    "dflow.records": ("field", "register", "struct"),
    "dflow.shapes": ("ShapeDtypeStruct", "eval_shape"),
    "dflow.solvers": ("fixed_point", "odeint"),
    "dflow.transforms.sparse": ("sparse_hessian", "sparse_jacobian"),
    "dflow.devices.streams": ("Stream",),
    "dflow.tracing.python.printing": ("print",),
    "dflow.tree": ("ravel_pytree",),
}
_PLACE = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _importlib.import_module(f"dflow.{name}")
    if name in _PLACE:
        found = getattr(_importlib.import_module(_PLACE[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'dflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PLACE})
