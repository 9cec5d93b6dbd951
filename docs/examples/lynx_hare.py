"""Fits the Lotka-Volterra equations to a century-old record of hares and lynxes, with gradients by dflow.

The Hudson's Bay Company counted pelts. Hares (u) and lynxes (v), in thousands, are taken to follow

    du/dt = (alpha - beta v) u        dv/dt = (delta u - gamma) v

and the counts to scatter log-normally around them, as in B. Carpenter, "Predator-Prey Population Dynamics: the
Lotka-Volterra model in Stan" (2018), whose priors and published estimates are used here. The model below is plain
NumPy: it runs without dflow, and the fit needs its gradient only.

    python lynx_hare.py [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import approx_fprime, minimize

import dflow

STEPS = 20  # of the Runge-Kutta method, in a year

NAMES = ("alpha", "beta", "gamma", "delta", "hares in 1900", "lynxes in 1900", "scatter of hares", "scatter of lynxes")
PUBLISHED = (0.55, 0.028, 0.80, 0.024, 33.9, 5.9, 0.25, 0.25)  # posterior means


# -- the model: plain NumPy ----------------------------------------------------------------------------------------


def growth(z, rates):
    """The derivatives of the populations by time."""
    hares, lynxes = z
    alpha, beta, gamma, delta = rates
    return np.array([(alpha - beta * lynxes) * hares, (delta * hares - gamma) * lynxes])


def runge_kutta(z, rates, h):
    """One step of the classical method of order four."""
    k1 = growth(z, rates)
    k2 = growth(z + h / 2 * k1, rates)
    k3 = growth(z + h / 2 * k2, rates)
    k4 = growth(z + h * k3, rates)
    return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def populations(start, rates, years, steps=STEPS):
    """Hares and lynxes at the beginning of each year."""
    traj = np.zeros((years, 2))
    traj[0] = start
    for i in range(1, years):
        z = traj[i - 1]
        for _ in range(steps):
            z = runge_kutta(z, rates, 1.0 / steps)
        traj[i] = z
    return traj


def loss(theta, pelts, steps=STEPS):
    """Minus the logarithm of the posterior density of ``theta``, which are the logarithms of the parameters."""
    p = np.exp(theta)
    rates, start, scatter = p[:4], p[4:6], p[6:]
    expected = populations(start, rates, len(pelts), steps)
    residuals = (np.log(pelts) - np.log(expected)) / scatter
    likelihood = -0.5 * np.sum(residuals**2) - len(pelts) * np.sum(np.log(scatter))
    centre, width = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
    prior = -0.5 * np.sum(((rates - centre) / width) ** 2) + np.sum(theta[:4])  # normal, seen on the logarithmic scale
    prior -= 0.5 * np.sum((theta[4:6] - np.log(10.0)) ** 2) + 0.5 * np.sum((theta[6:] + 1.0) ** 2)
    return -(likelihood + prior)


# -- the fit -------------------------------------------------------------------------------------------------------


def first_guess(pelts: np.ndarray) -> np.ndarray:
    """What can be read off the record: cycles of ten years, populations that go around their means."""
    rate = 2 * np.pi / 10
    hares, lynxes = pelts.mean(axis=0)
    return np.log([rate, rate / lynxes, rate, rate / hares, *pelts[0], 0.4, 0.4])


def fit(value_and_grad: Callable[..., Any], pelts: np.ndarray, every: int = 5) -> Any:
    """The most probable parameters; prints a line every few iterations."""
    count = 0

    def progress(intermediate_result):
        nonlocal count
        count += 1
        if count % every == 0:
            print(f"  iteration {count:3d}   loss {intermediate_result.fun:10.6f}", flush=True)

    return minimize(value_and_grad, first_guess(pelts), args=(pelts,), jac=True, method="BFGS", callback=progress)


def report(estimates: np.ndarray) -> None:
    print(f"\n  {'parameter':<18} {'estimate':>9} {'published':>9} {'difference':>10}")
    for name, estimate, published in zip(NAMES, estimates, PUBLISHED):
        print(f"  {name:<18} {estimate:9.4f} {published:9.3f} {100 * (estimate / published - 1):+9.1f}%")
    print("  published: posterior means; of a scatter, with its long tail, the mean lies above the most probable value")


def best(run: Callable[[], Any], seconds: float) -> float:
    """The shortest time of a call within about ``seconds``."""
    timer = timeit.Timer(run)
    number = max(1, int(seconds / 5 / timer.timeit(1)))
    return min(timer.repeat(5, number)) / number


def compare_times(theta: np.ndarray, pelts: np.ndarray, seconds: float) -> None:
    """The gradient against the value, with and without dflow."""
    value, gradient = dflow.jit(loss), dflow.grad(loss)
    value(theta, pelts), gradient(theta, pelts)
    took = best(lambda: gradient(theta, pelts), seconds)
    others = {
        "the value in dflow": best(lambda: value(theta, pelts), seconds),
        "the value in NumPy": best(lambda: loss(theta, pelts), seconds),
        "finite differences in NumPy": best(lambda: approx_fprime(theta, loss, 1e-7, pelts), seconds),
    }
    print(f"\n  one gradient: {took * 1e6:.1f} us")
    for name, t in others.items():
        print(f"  {name:<28} {t * 1e6:10.1f} us   gradient / this = {took / t:.2g}")


# -- what is left in the folder ------------------------------------------------------------------------------------


def plot(estimates: np.ndarray, years: np.ndarray, pelts: np.ndarray, path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("  no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    per_year = 50
    fine = populations(estimates[4:6], estimates[:4] / per_year, (len(years) - 1) * per_year + 1, 1)
    figure, axes = plt.subplots(figsize=(8, 4))
    for k, (name, colour) in enumerate([("hares", "tab:blue"), ("lynxes", "tab:orange")]):
        axes.plot(years, pelts[:, k], "o", color=colour, label=name)
        axes.plot(years[0] + np.arange(len(fine)) / per_year, fine[:, k], color=colour)
    axes.set(xlabel="year", ylabel="pelts (thousands)", title="Hudson's Bay Company: counts and fitted populations")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    print(f"  {path}")


def write_stages(value_and_grad: Any, theta: np.ndarray, pelts: np.ndarray, folder: Path) -> None:
    """The program of value and gradient at each stage, as text."""
    folder.mkdir(exist_ok=True)
    lowered = value_and_grad.lower(theta, pelts)
    for k, stage in enumerate(("traced", "optimized", "lowered")):
        path = folder / f"{k}-{stage}.ir"
        path.write_text(lowered.ir(stage, full=True) + "\n")
        print(f"  {path} ({len(path.read_text().splitlines())} lines)")
    path = folder / "3-llvm.ll"
    path.write_text(lowered.llvm())
    print(f"  {path}")


def write_library(value_and_grad: Any, theta: np.ndarray, pelts: np.ndarray, path: Path) -> None:
    """Value and gradient as a C library, called back through ctypes."""
    for file in dflow.compile_library(loss, (theta, pelts), path, value_and_grad=True, cpu="host"):
        print(f"  {file}")
    library = ctypes.CDLL(str(path.resolve()))
    value, gradient = np.zeros(()), np.zeros_like(theta)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (theta, pelts, value, gradient)]
    status = library.loss_value_and_grad(*pointers, None)
    here, gradient_here = value_and_grad(theta, pelts)
    apart = max(abs(value - here), *abs(gradient - gradient_here))
    print(f"  called through ctypes: status {status}, loss {value:.6f}, at most {apart:.1g} from the result in Python")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits predator and prey to the Hudson's Bay Company's pelt records.")
    parser.add_argument("--out", type=Path, default=Path("lynx_hare_out"), help="folder for what is written")
    parser.add_argument("--quick", action="store_true", help="short time measurements")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    with open(Path(__file__).with_name("lynx_hare.csv")) as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    years = np.array([float(r["year"]) for r in rows])
    pelts = np.array([[float(r["hare"]), float(r["lynx"])] for r in rows])

    print("fit")
    value_and_grad = dflow.value_and_grad(loss)
    found = fit(value_and_grad, pelts)
    print(
        f"  {found.nit} iterations, {found.nfev} gradients, loss {found.fun:.6f}, |gradient| {abs(found.jac).max():.1e}"
    )
    report(np.exp(found.x))

    print("\ntimes")
    compare_times(found.x, pelts, 0.1 if options.quick else 1.0)

    print("\nwritten")
    plot(np.exp(found.x), years, pelts, options.out / "fit.png")
    write_stages(value_and_grad, found.x, pelts, options.out / "ir")
    write_library(value_and_grad, found.x, pelts, options.out / "liblynxhare.so")


if __name__ == "__main__":
    main()
