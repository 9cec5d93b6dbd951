"""Minimum cut of a directed graph: what to save so that everything else can be recomputed.

Dinic's algorithm (E. A. Dinic, 1970): breadth-first levels, then blocking flows along them.
"""

from __future__ import annotations

from collections import deque

INFINITE = float("inf")


class FlowNetwork:
    """Nodes are numbered from 0 in the order of ``node()``; capacities may be infinite."""

    def __init__(self) -> None:
        self.edges: list[list[int]] = []  # node -> edge numbers
        self.target: list[int] = []
        self.capacity: list[float] = []

    def node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, source: int, target: int, capacity: float) -> None:
        """An edge and, next to it in the lists, its reverse for the residual flow."""
        for a, b, c in ((source, target, capacity), (target, source, 0.0)):
            self.edges[a].append(len(self.target))
            self.target.append(b)
            self.capacity.append(c)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The nodes on the source's side of a minimum cut (the one nearest to the source)."""
        while True:
            level = self._levels(source)
            if sink not in level:
                return set(level)
            position = [0] * len(self.edges)
            while self._augment(source, sink, level, position):
                pass

    def _levels(self, source: int) -> dict[int, int]:
        level = {source: 0}
        queue = deque([source])
        while queue:
            a = queue.popleft()
            for e in self.edges[a]:
                if self.capacity[e] > 0 and self.target[e] not in level:
                    level[self.target[e]] = level[a] + 1
                    queue.append(self.target[e])
        return level

    def _augment(self, source: int, sink: int, level: dict[int, int], position: list[int]) -> bool:
        """Pushes flow along one shortest path; False when there is none left. Iterative: paths can be long."""
        path: list[int] = []
        at = source
        while at != sink:
            while position[at] < len(self.edges[at]):
                e = self.edges[at][position[at]]
                if self.capacity[e] > 0 and level.get(self.target[e]) == level[at] + 1:
                    break
                position[at] += 1
            else:
                if not path:
                    return False
                e = path.pop()
                at = self.target[e ^ 1]
                position[at] += 1
                continue
            path.append(e)
            at = self.target[e]
        flow = min(self.capacity[e] for e in path)
        assert flow < INFINITE, "source and sink are joined by edges that cannot be cut"
        for e in path:
            self.capacity[e] -= flow
            self.capacity[e ^ 1] += flow
        return True
