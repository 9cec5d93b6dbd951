"""Inputs in GradBench's own JSON form: read from its files, or drawn as its harness draws them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

Input = dict[str, Any]


def folder() -> Path | None:
    """The folder of GradBench's files, with ``ba``, ``ht`` and ``lstm``, by the environment variable GRADBENCH_DATA."""
    path = os.environ.get("GRADBENCH_DATA")
    return Path(path) if path else None


def lse(n: int) -> Input:
    return {"x": _random().random(n)}


def llsq(n: int, m: int) -> Input:
    return {"x": _random().random(m), "n": n}


def det(size: int) -> Input:
    return {"A": _random().random(size * size), "ell": size}


def ode(n: int, s: int) -> Input:
    return {"x": _random().random(n), "s": s}


def kmeans(k: int, n: int, d: int) -> Input:
    points = _random().random((n, d))
    return {"points": points, "centroids": points[-k:]}


def gmm(d: int, k: int, n: int = 1000) -> Input:
    r = _random()
    parameters = {"alpha": r.normal(size=k), "mu": r.random((k, d)), "q": r.normal(size=(k, d))}
    parameters["l"] = r.normal(size=(k, d * (d - 1) // 2))
    return {"d": d, "k": k, "n": n, "x": r.normal(size=(n, d)), "m": 0, "gamma": 1.0} | parameters


def ba(number: int) -> Input:
    """The file of that number; without files, numbers of its kind and the sizes of the first."""
    if root := folder():
        lines = next((root / "ba").glob(f"ba{number}_*.txt")).read_text().split("\n")
        sizes, camera, point, weight, feature = (np.array(line.split(), dtype=float) for line in lines[:5])
    else:
        sizes, weight = np.array([49, 7776, 31843]), np.array([0.4])
        camera = np.array([-0.8, -1.1, -0.8, 34.6, 39.7, 53.9, 419.2, 5.9, -8.5, 0.09, 0.003])
        point, feature = np.array([7.2, 0.0, 3.0]), np.array([271.8, 834.2])
    n, m, p = map(int, sizes)
    return {"n": n, "m": m, "p": p, "cam": camera, "x": point, "w": float(weight[0]), "feat": feature}


def lstm(layers: int, c: int) -> Input:
    """The file of these sizes; without it, random numbers and bits."""
    b, root = 14, folder()
    path = root / "lstm" / f"lstm_l{layers}_c{c}.txt" if root else None
    if path and path.exists():
        numbers = path.read_text().split()
        values = np.array(numbers[3:], dtype=float)
    else:
        values = _random().random(2 * layers * 5 * b + (3 + c) * b)
        values[-c * b :] = np.round(values[-c * b :])
    sizes = (2 * layers * 4 * b, 3 * b, 2 * layers * b, c * b)
    main, extra, state, sequence = np.split(values[: sum(sizes)], np.cumsum(sizes)[:-1])
    rows = {"main_params": main.reshape(-1, 4 * b), "extra_params": extra.reshape(3, b)}
    return rows | {"state": state.reshape(-1, b), "sequence": sequence.reshape(c, b)}


def ht(kind: str, number: int) -> Input:
    """The file ``hand{number}`` of that kind, and the small model; without files, random numbers."""
    root = folder()
    if root is None:
        return _any_hand(kind)
    path = next((root / "ht" / f"{kind}_small").glob(f"hand{number}_*.txt"))
    lines = [line.split() for line in path.read_text().splitlines()]
    n = int(lines[0][0])
    seen = [int(line[0]) for line in lines[1 : n + 1]]
    points = np.array([line[1:] for line in lines[1 : n + 1]], dtype=float)
    at = n + 1
    us = np.array(lines[at : at + n], dtype=float) if kind == "complicated" else np.zeros((0, 2))
    theta = np.array(lines[at + len(us) :], dtype=float).reshape(-1)
    return {"theta": theta, "us": us, "data": _data(_model(path.parent / "model"), seen, points)}


def _model(path: Path) -> Input:
    bones = [line.split(":") for line in (path / "bones.txt").read_text().splitlines()]
    numbers = np.array([bone[2:34] for bone in bones], dtype=float)
    lines = [line.split(":") for line in (path / "vertices.txt").read_text().splitlines()]
    weights = np.zeros((len(lines), len(bones)))
    for i, line in enumerate(lines):
        for k in range(int(line[8])):
            weights[i, int(line[9 + 2 * k])] = float(line[10 + 2 * k])
    return {
        "parents": [int(bone[1]) for bone in bones],
        "base_relatives": numbers[:, :16].reshape(-1, 4, 4),
        "inverse_base_absolutes": numbers[:, 16:].reshape(-1, 4, 4),
        "base_positions": np.array([[*line[:3], 1.0] for line in lines], dtype=float),
        "weights": weights,
        "triangles": np.loadtxt(path / "triangles.txt", int, delimiter=":"),
    }


def _data(model: Input, seen: Any, points: np.ndarray) -> Input:
    return {"model": model | {"is_mirrored": False}, "correspondences": seen, "points": points}


def _any_hand(kind: str, bones: int = 22, n: int = 100, v: int = 544, triangles: int = 1000) -> Input:
    r = _random()
    model = {
        "parents": [-1, *range(bones - 1)],
        "base_relatives": r.random((bones, 4, 4)),
        "inverse_base_absolutes": r.random((bones, 4, 4)),
        "base_positions": np.concatenate([r.random((v, 3)), np.ones((v, 1))], axis=1),
        "weights": r.random((v, bones)),
        "triangles": r.integers(v, size=(triangles, 3)),
    }
    seen = r.integers(triangles if kind == "complicated" else v, size=n)
    us = r.random((n, 2)) if kind == "complicated" else np.zeros((0, 2))
    return {"theta": r.random(26), "us": us, "data": _data(model, seen, r.random((n, 3)))}


def _random() -> np.random.Generator:
    return np.random.default_rng(31337)
