"""Directed graphs with several kinds of edges: strongly connected components and short cycles through chosen kinds.

Nodes are numbers, kinds are short names. Both searches go without recursion: a history has a hundred thousand nodes.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """Source must come before target, and why."""

    source: int
    target: int
    kind: str
    reason: str = ""


class Graph:
    """Edges by source; between two nodes the first of each kind is kept."""

    def __init__(self) -> None:
        self.edges: dict[int, dict[tuple[int, str], Edge]] = {}

    def add(self, edge: Edge) -> None:
        if edge.source != edge.target:
            self.edges.setdefault(edge.source, {}).setdefault((edge.target, edge.kind), edge)
            self.edges.setdefault(edge.target, {})

    def all(self) -> Iterator[Edge]:
        for edges in self.edges.values():
            yield from edges.values()

    def only(self, kinds: Collection[str], nodes: Collection[int] | None = None) -> "Graph":
        """The same with edges of these kinds, among these nodes."""
        part = Graph()
        for edge in self.all():
            if edge.kind in kinds and (nodes is None or (edge.source in nodes and edge.target in nodes)):
                part.add(edge)
        return part

    def components(self) -> list[list[int]]:
        """Strongly connected components of two nodes or more (Tarjan)."""
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        path: list[int] = []
        on_path: set[int] = set()
        found = []
        for root in self.edges:
            if root in index:
                continue
            index[root] = low[root] = len(index)
            path.append(root)
            on_path.add(root)
            work = [(root, iter(self.edges[root].values()))]
            while work:
                node, edges = work[-1]
                for edge in edges:
                    target = edge.target
                    if target not in index:
                        index[target] = low[target] = len(index)
                        path.append(target)
                        on_path.add(target)
                        work.append((target, iter(self.edges[target].values())))
                        break
                    if target in on_path:
                        low[node] = min(low[node], index[target])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == index[node]:
                        component = [path.pop()]
                        while component[-1] != node:
                            component.append(path.pop())
                        on_path.difference_update(component)
                        if len(component) > 1:
                            found.append(component)
        return found

    def path(self, source: int, target: int) -> list[Edge] | None:
        """A shortest path; None when there is none."""
        came: dict[int, Edge] = {}
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for edge in self.edges.get(node, {}).values():
                if edge.target == target:
                    back = [edge]
                    while back[-1].source != source:
                        back.append(came[back[-1].source])
                    return back[::-1]
                if edge.target not in came and edge.target != source:
                    came[edge.target] = edge
                    queue.append(edge.target)
        return None

    def cycle(self) -> list[Edge] | None:
        """A short cycle: the shortest through one node of a component; None when there is none."""
        for component in self.components():
            return self.path(component[0], component[0])
        return None

    def cycle_through(self, edges: Collection[Edge]) -> list[Edge] | None:
        """A cycle of one of these edges and a path of this graph; the first that is found."""
        for edge in edges:
            back = self.path(edge.target, edge.source)
            if back is not None:
                return [edge, *back]
        return None
