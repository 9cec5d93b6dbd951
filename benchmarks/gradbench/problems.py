"""The problems as GradBench calls them: functions, from its JSON to arguments, and from results to its JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dflow
from benchmarks.gradbench import adjustment, basic, hand, memory, mixture, nested

Input = dict[str, Any]
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """``functions`` take what ``prepare`` makes of an input; ``finish`` makes JSON of a function's result."""

    prepare: Callable[[Input], Arguments]
    functions: dict[str, Callable[..., Any]]
    finish: dict[str, Callable[[Any, Input], Any]] = field(default_factory=dict)
    value: Callable[..., Any] | None = None  # the value alone as plain NumPy

    def output(self, function: str, result: Any, given: Input) -> Any:
        return self.finish.get(function, lambda x, given: plain(x))(result, given)


def plain(x: Any) -> Any:
    """``x`` with lists for arrays."""
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return x.tolist() if isinstance(x, np.ndarray) else float(x)


def array(x: Any) -> np.ndarray:
    return np.array(x, dtype=float)


def gmm(given: Input) -> Arguments:
    d, k, n, m, gamma = (given[x] for x in ("d", "k", "n", "m", "gamma"))
    parameters = tuple(array(given[x]) for x in ("alpha", "mu", "q")) + (array(given["l"]).reshape(k, -1),)
    return parameters, array(given["x"]), gamma, m, mixture.constant(n, d, k, gamma, m)


def lstm(given: Input) -> Arguments:
    return tuple(array(given[x]) for x in ("main_params", "extra_params", "state", "sequence"))


def ba(given: Input) -> Arguments:
    n, m, p = given["n"], given["m"], given["p"]
    copies = [np.tile(array(given[x]), (count, 1)) for x, count in (("cam", n), ("x", m))]
    return *copies, np.full(p, given["w"]), np.tile(array(given["feat"]), (p, 1)), observations(given)


def observations(given: Input) -> np.ndarray:
    index = np.arange(given["p"])
    return np.stack([index % given["n"], index % given["m"]], axis=1)


def ba_errors(result: Any, given: Input) -> Any:
    errors, of_weights = result
    return {
        "reproj_error": {"elements": errors[0].tolist(), "repeated": given["p"]},
        "w_err": {"element": float(of_weights[0]), "repeated": given["p"]},
    }


def ba_jacobian(result: Any, given: Input) -> Any:
    starts, columns = adjustment.structure(given["n"], given["m"], observations(given))
    values = np.concatenate([x.ravel() for x in result])
    return {k: [*x[:30].tolist(), x[-1].item()] for k, x in (("rows", starts), ("cols", columns), ("vals", values))}


def ht(given: Input) -> Arguments:
    model = given["data"]["model"]
    if model["is_mirrored"]:
        raise ValueError("mirrored models of hands are not supported: GradBench has none")
    names = {"base": "base_relatives", "inverse": "inverse_base_absolutes", "vertices": "base_positions"}
    arrays = {k: array(model[v]) for k, v in names.items()} | {"weights": array(model["weights"])}
    arrays |= {k: np.array(model[k], dtype=np.int64) for k in ("parents", "triangles")}
    us = array(given["us"]).reshape(-1, 2)
    seen = np.array(given["data"]["correspondences"], dtype=np.int64)
    return array(given["theta"]), *([us] if len(us) else []), arrays, seen, array(given["data"]["points"])


def either(simple: Callable[..., Any], complicated: Callable[..., Any]) -> Callable[..., Any]:
    """The problem ht has two kinds of input, told apart by the number of arguments."""
    by_count = {4: dflow.jit(simple), 5: dflow.jit(complicated)}
    return lambda *args: by_count[len(args)](*args)


def direction(given: Input) -> Arguments:
    return array(given["centroids"]), array(given["points"])


PROBLEMS = {
    "hello": Problem(
        lambda x: (float(x),),
        {"square": dflow.jit(basic.square), "double": dflow.grad(basic.square)},
        value=basic.square,
    ),
    "lse": Problem(
        lambda x: (array(x["x"]),),
        {"primal": dflow.jit(basic.log_sum_exp), "gradient": dflow.grad(basic.log_sum_exp)},
        value=basic.log_sum_exp,
    ),
    "llsq": Problem(
        lambda x: (array(x["x"]), x["n"]),
        {"primal": dflow.jit(basic.least_squares), "gradient": dflow.grad(basic.least_squares)},
        value=basic.least_squares,
    ),
    "det": Problem(
        lambda x: (array(x["A"]).reshape(x["ell"], x["ell"]),),
        {"primal": dflow.jit(basic.determinant), "gradient": dflow.grad(basic.determinant)},
        {"gradient": lambda x, given: x.ravel().tolist()},
        basic.determinant,
    ),
    "ode": Problem(
        lambda x: (array(x["x"]), x["s"]),
        {"primal": dflow.jit(basic.runge_kutta), "gradient": dflow.grad(basic.last_of_runge_kutta)},
        value=basic.runge_kutta,
    ),
    "kmeans": Problem(
        direction, {"cost": dflow.jit(basic.k_means), "dir": dflow.jit(basic.k_means_direction)}, value=basic.k_means
    ),
    "gmm": Problem(
        gmm,
        {"objective": dflow.jit(mixture.posterior), "jacobian": dflow.grad(mixture.posterior)},
        {"jacobian": lambda x, given: plain(dict(zip(("alpha", "mu", "q", "l"), x)))},
        mixture.posterior,
    ),
    "lstm": Problem(
        lstm,
        {"objective": dflow.jit(memory.loss), "jacobian": dflow.grad(memory.loss, argnums=(0, 1))},
        {"jacobian": lambda x, given: np.concatenate([g.ravel() for g in x]).tolist()},
        memory.loss,
    ),
    "ba": Problem(
        ba,
        {"objective": dflow.jit(adjustment.objective), "jacobian": dflow.jit(adjustment.jacobian)},
        {"objective": ba_errors, "jacobian": ba_jacobian},
        adjustment.objective,
    ),
    "ht": Problem(
        ht,
        {
            "objective": either(hand.simple, hand.complicated),
            "jacobian": either(hand.simple_jacobian, hand.complicated_jacobian),
        },
        {"objective": lambda x, given: x.ravel().tolist()},
        lambda *args: (hand.simple if len(args) == 4 else hand.complicated)(*args),
    ),
    "particle": Problem(
        lambda x: (float(x["w"]),), {k: dflow.jit(f) for k, f in nested.variants(nested.particle).items()}
    ),
    "saddle": Problem(
        lambda x: (array(x["start"]),), {k: dflow.jit(f) for k, f in nested.variants(nested.saddle).items()}
    ),
}
