"""Tables of times as pictures, where matplotlib is installed: a dot for each contestant, on a scale of powers of 10."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Table, Time, peer

MARKERS = "osD^vP*X"


def draw(group: str, tables: Sequence[Table], folder: Path) -> None:
    """Writes ``GROUP-TABLE.svg`` for each table that compares times."""
    if peer("matplotlib") is None:
        return
    for table in tables:
        columns = [k for k in range(1, len(table.columns)) if any(isinstance(row[k], Time) for row in table.rows)]
        if columns and len(table.rows) > 1:
            name = "-".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split()[:3])
            _picture(table, columns, folder / f"{group}-{name}.svg")


def _picture(table: Table, columns: Sequence[int], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = [" ".join(str(x) for x in row[: columns[0]] if x) for row in table.rows]
    with rc_context({"svg.hashsalt": "", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(7, 0.9 + 0.26 * len(names)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for k, marker in zip(columns, MARKERS):
            seen = [(x.median * 1e6, y) for y, row in enumerate(table.rows) if isinstance(x := row[k], Time)]
            axes.plot(*zip(*seen), marker, label=table.columns[k], alpha=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="µs, median", title=table.title)
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, metadata={"Date": None})
