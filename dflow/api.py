"""The transformations: what a user calls. Each takes a function and gives a function, or values at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dflow import debug as debug  # which gives `breakpoint()` its meaning in traced code
from dflow import trees
from dflow.devices.program import DEVICES, DeterministicProgram
from dflow.errors import DerivativeError, failure, user_frames_only
from dflow.ir.passes import jvp as jvp_pass
from dflow.ir.passes import vjp as vjp_pass
from dflow.programs.methods import after_self, decorated, taken_apart
from dflow.programs.program import trace_program
from dflow.programs.reference import BACKENDS
from dflow.programs.sharing import shared
from dflow.programs.signature import Arguments
from dflow.programs.transform import Jit
from dflow.tracing.context import tracing
from dflow.transforms.derivatives import (
    check_holomorphic,
    check_scalar,
    derive,
    inline,
    matching,
    operands,
    pure,
)
from dflow.transforms.linear_maps import Linearized, require_pair, transposed
from dflow.transforms.selection import (
    Argnums,
    Selection,
    argument_names,
    argument_numbers,
    chosen_numbers,
    require_parameters,
)
from dflow.transforms.zero_gradients import warn_of_zeros


def jit(
    function: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    backend: str = "native",
    device: str | None = None,
    deterministic: bool = False,
    inline: bool = False,
) -> Any:
    """Compiles a function to machine code, for each signature when it is first called with it.

    The signature is the tree of the arguments, the dtypes and shapes of its leaves, and the values of static arguments.
    Arguments and results are numbers, NumPy arrays and trees of them (dict, list, tuple, named tuple, dataclass).
    Results are NumPy arrays and NumPy scalars. Arrays that the function updates in place are updated for the caller.
    Global variables and closures are read when a signature is compiled.

    ``static_argnums``, ``static_argnames``: arguments that are known while compiling (hashable). A new value compiles
    anew.
    ``donate_argnums``: arguments that the caller will not use again; their memory may be reused. It changes no result.

    ``backend``: ``"native"`` compiles to machine code, ``"reference"`` runs the reference evaluator, one operation
    after the other, in which ``dflow.debug.breakpoint`` stops.
    ``device``: ``"cpu"``, or ``"cuda"`` for an NVIDIA GPU, where derivatives and ``vmap`` of the function run too.
    ``deterministic``: on the GPU, every run gives the same bits, at a price (docs/gpu.md); elsewhere it is so anyway.
    ``inline`` is there for programs of JAX, and changes nothing.

    Works as a decorator, with or without arguments, on functions, methods and lambdas. The result has
    ``lower(*args)``, which gives the program's stages as text.
    """
    if function is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            backend=backend,
            device=device,
            deterministic=deterministic,
        )
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if device not in (None, *DEVICES):
        raise ValueError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")
    if device == "cuda" and backend != "native":
        raise ValueError(f"backend {backend!r} runs on the CPU; leave out device={device!r}")
    if deterministic and device != "cuda":
        raise ValueError("deterministic=True says how to run on a GPU: pass device='cuda' too, or leave it out")
    argument_numbers("donate_argnums", donate_argnums)
    on_gpu = "cuda, deterministic" if deterministic else "cuda"
    return _jit(
        function,
        argument_numbers("static_argnums", static_argnums),
        argument_names("static_argnames", static_argnames),
        on_gpu if device == "cuda" else backend,
    )


def _jit(function: Callable[..., Any], nums: tuple[int, ...], names: tuple[str, ...], where: str) -> Any:
    """``where`` is a backend, or a device other than the processor."""
    inside = decorated(function, lambda f: _jit(f, nums, names, where))
    if inside is not None:
        return inside
    bound = taken_apart(function)
    if bound is not None:  # attributes of the instance are arguments, not constants
        return _jit(bound[0], after_self(nums), names, where).__get__(bound[1])
    recipe = (_jit, nums, names, where)

    def make() -> Jit:
        require_parameters(function, nums, names)
        return Jit(
            function,
            None,
            "jit",
            nums,
            names,
            recipe,
            {**BACKENDS, **DEVICES, "cuda, deterministic": DeterministicProgram}[where],
        )

    return shared(make, function, recipe)


def grad(
    function: Callable[..., Any] | None = None,
    argnums: Argnums | None = None,
    argnames: str | Sequence[str] | None = None,
    *,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """The gradient of a function that returns one float.

    ``grad(f)(x, ...)`` has the structure of ``x``: of the first argument, of the one that ``argnums`` numbers, or a
    tuple for several. Integer leaves give None. With ``has_aux`` the function returns ``(value, aux)`` and the gradient
    function ``(gradient, aux)``. It is compiled; it never changes its arguments.

    By a complex argument ``x + iy`` it is ``d/dx - i d/dy``, as in JAX. With ``holomorphic`` the arguments and the
    result are complex, and the function must be holomorphic: then it is the complex derivative. With ``allow_int`` the
    gradient by an argument that holds no floats is None, too.

    Raises DerivativeError when the result is no float scalar, when an argument holds no floats, or when something in
    between has no derivative.
    """
    return _gradient(function, argnums, argnames, has_aux, False, holomorphic, allow_int)


def value_and_grad(
    function: Callable[..., Any] | None = None,
    argnums: Argnums | None = None,
    argnames: str | Sequence[str] | None = None,
    *,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """As ``grad``, but returns ``(value, gradient)``; with ``has_aux``, ``((value, aux), gradient)``."""
    return _gradient(function, argnums, argnames, has_aux, True, holomorphic, allow_int)


def _gradient(
    function: Any,
    argnums: Any,
    argnames: Any,
    has_aux: bool,
    with_value: bool,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    verb = "value_and_grad" if with_value else "grad"
    if function is None:
        options = {"has_aux": has_aux, "with_value": with_value, "holomorphic": holomorphic, "allow_int": allow_int}
        return functools.partial(_gradient, argnums=argnums, argnames=argnames, **options)
    nums = chosen_numbers(argnums, argnames)
    names = (
        argnames
        if argnames is None or isinstance(argnames, str)
        else argument_names("argnames", argnames, DerivativeError)
    )
    inside = decorated(function, lambda f: _gradient(f, nums, names, has_aux, with_value, holomorphic, allow_int))
    if inside is not None:
        return inside
    bound = taken_apart(function)
    if bound is not None:
        made = _gradient(bound[0], after_self(nums), names, has_aux, with_value, holomorphic, allow_int)
        return made.__get__(bound[1])

    def inner(*args: Any, **kwargs: Any) -> Any:
        program = trace_program(function, Arguments(function, args, kwargs, keep_known=True))
        selection = Selection(program.arguments, nums, names, verb, allow_int)
        check_scalar(program, has_aux, verb, holomorphic)
        if holomorphic:
            check_holomorphic(program, selection.wrt, verb)
        made = derive(pure(program), lambda f: vjp_pass.value_and_grad(f, selection.wrt))
        name = getattr(function, "__name__", "the function")
        warn_of_zeros(pure(program), made, selection.wrt, program.arguments.names(), program.result_count, name)
        results = inline(made, operands(program))
        n = program.result_count
        value = trees.unflatten(program.out_spec, results[:n])
        gradient = selection.rebuild(results[n:])
        if with_value:
            return value, gradient
        return (gradient, value[1]) if has_aux else gradient

    recipe = (_gradient, nums, names, has_aux, with_value, holomorphic, allow_int)
    return shared(lambda: Jit(function, inner, verb, recipe=recipe), function, recipe)


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """The value of ``function(*primals)``, and its derivative in the direction ``tangents`` (forward mode).

    ``tangents`` has the structure and shapes of ``primals``; what cannot vary (integers) may be None there. The second
    result has the structure of the first, with None for what cannot vary. With ``has_aux`` the function returns
    ``(value, aux)``, and this returns ``(value, derivative, aux)``.
    """

    def inner(primals: Any, tangents: Any) -> Any:
        program = trace_program(function, Arguments(function, primals, {}, keep_known=True))
        a = program.arguments
        types = [None if t is None else t.type for t in a.all_types]
        dots = matching(tuple(tangents), tuple(primals), types, "tangents", "primals")
        dots = [d for i, d in enumerate(dots) if i not in a.fixed]
        wrt = [i for i, d in enumerate(dots) if d is not None]
        made = derive(pure(program), lambda f: jvp_pass.jvp(f, wrt))
        results = inline(made, operands(program, [d for d in dots if d is not None]))
        n = program.result_count
        rest = iter(results[n:])
        moving = [next(rest) if r.type.dtype.is_inexact else None for r in made.results[:n]]
        value, out = trees.unflatten(program.out_spec, results[:n]), trees.unflatten(program.out_spec, moving)
        if not has_aux:
            return value, out
        require_pair(value)
        return value[0], out[0], value[1]

    with user_frames_only():
        require_tuples("jvp", primals, tangents)
        recipe = ("jvp", has_aux)
        run = shared(lambda: Jit(function, inner, "jvp", recipe=recipe), function, recipe)
        return run(tuple(primals), tuple(tangents))


def require_tuples(name: str, primals: Any, tangents: Any) -> None:
    """An array would count as the tuple of its rows."""
    for what, x in (("primals", primals), ("tangents", tangents)):
        if not isinstance(x, tuple | list):
            raise failure(
                DerivativeError,
                f"{name} takes {what} in a tuple, one for each argument",
                seen=type(x).__name__,
                mend=f"{name}(f, (x,), (x_dot,))",
            )


def vjp(function: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of ``function(*primals)``, and a function from cotangents of the value to those of ``primals``.

    Reverse mode: ``value, pull = vjp(f, x, y)``; ``x_bar, y_bar = pull(value_bar)``. With ``has_aux`` the function
    returns ``(value, aux)``, and this returns ``(value, pull, aux)``.
    """
    with user_frames_only():
        return _linearized(function, has_aux).vjp(Arguments(function, primals, {}, keep_known=tracing()))


def linearize(function: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of ``function(*primals)``, and its derivative there: a linear function of tangents.

    The nonlinear part is computed once, so that many directions are cheap. With ``has_aux`` the function returns
    ``(value, aux)``, and this returns ``(value, derivative, aux)``.
    """
    with user_frames_only():
        return _linearized(function, has_aux).linearize(Arguments(function, primals, {}, keep_known=tracing()))


def _linearized(function: Callable[..., Any], has_aux: bool) -> Linearized:
    if tracing():
        return Linearized(function, has_aux)
    return shared(lambda: Linearized(function, has_aux), function, ("linearize", has_aux))


def linear_transpose(function: Callable[..., Any], *primals: Any) -> Callable[..., Any]:
    """The transpose of a linear function: from cotangents of its result to a tuple of cotangents of its arguments.

    ``primals`` give types and shapes only. Raises DerivativeError when the function is not linear in them.
    """

    def inner(primals: Any, bars: Any) -> Any:
        program = trace_program(function, Arguments(function, primals, {}))
        return transposed(program, bars)

    recipe = ("linear_transpose",)
    run = shared(lambda: Jit(function, inner, "linear_transpose", recipe=recipe), function, recipe)
    return lambda bars: run(tuple(primals), bars)
