"""Tables as pictures, where matplotlib is installed: a mark for each contestant, on a scale of powers of 10."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Memory, Once, Ratio, Table, Time, peer

KNOWN = ("dflow", "C", "Numba", "JAX", "PyTorch", "CasADi", "autograd", "NumPy")  # look the same in every picture
MARKERS = "osD^vP*Xd<>"
# What a cell is drawn as, and the name of its axis.
KINDS: dict[type, tuple[str, Any]] = {
    Time: ("µs, median", lambda x: x.median * 1e6),
    Once: ("ms", lambda x: x.seconds * 1e3),
    Memory: ("MiB", lambda x: max(x.mib, 0.1)),
    Ratio: ("ratio", lambda x: x.times),
}


def draw(group: str, tables: Sequence[Table], folder: Path) -> None:
    """Writes ``GROUP-TABLE.svg`` for each table with several rows of what can be drawn."""
    if peer("matplotlib") is None:
        return
    for table in tables:
        kind = next((type(x) for row in table.rows for x in row if type(x) in KINDS), None)
        columns = [k for k in range(1, len(table.columns)) if any(type(row[k]) is kind for row in table.rows)]
        if kind and len(table.rows) > 1:
            name = "-".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split()[:6])
            _picture(table, kind, columns, folder / f"{group}-{name}.svg")


def _style(name: str, column: int) -> dict[str, Any]:
    order = KNOWN.index(name) if name in KNOWN else column - 1
    front = {"markersize": 7, "zorder": 3} if order == 0 else {"markersize": 5, "alpha": 0.75}
    return {"marker": MARKERS[order % len(MARKERS)], "color": f"C{order}", **front}


def _picture(table: Table, kind: type, columns: Sequence[int], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    axis, number = KINDS[kind]
    names = [" ".join(str(x) for x in row[: columns[0]] if x) for row in table.rows]
    with rc_context({"svg.hashsalt": "", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(8, 0.9 + 0.22 * len(names)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for k in columns:
            seen = [(number(row[k]), y) for y, row in enumerate(table.rows) if type(row[k]) is kind]
            axes.plot(*zip(*seen), label=table.columns[k], linestyle="none", **_style(table.columns[k], k))
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel=axis, title=table.title)
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, metadata={"Date": None})
