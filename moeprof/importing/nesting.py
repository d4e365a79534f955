"""Which of many intervals encloses a moment, innermost first; for arrays of both.

Intervals of one thread nest, but start/end ranges and damaged captures may cross: then the one that
began last among those that enclose the moment counts as the innermost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.trace import Times

Indices = NDArray[np.integer[Any]]


class Nest:
    """Intervals [begin_ns, end_ns], in order of begin (of those that begin together: outer first).

    parent[k]: the innermost interval still open when k began, -1 if there was none.
    """

    def __init__(self, begin_ns: Times, end_ns: Times) -> None:
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self.parent = _parents(begin_ns, end_ns)

    def innermost(self, from_ns: Times, until_ns: Times) -> Indices:
        """For each [from_ns, until_ns] the interval that encloses it, -1 where none does."""
        found = np.searchsorted(self.begin_ns, from_ns, side="right").astype(np.int64) - 1
        open_ = np.flatnonzero(found >= 0)
        while len(open_):
            ended = self.end_ns[found[open_]] < until_ns[open_]
            open_ = open_[ended]
            found[open_] = self.parent[found[open_]]
            open_ = open_[found[open_] >= 0]
        return found

    @property
    def outermost(self) -> NDArray[np.bool_]:
        """Which intervals lie in no other."""
        outer: NDArray[np.bool_] = self.parent < 0
        return outer


def groups(keys: Indices, some: Indices) -> Iterator[tuple[int, Indices]]:
    """Each distinct key of the elements ``some``, with those of them that have it, in order."""
    if not len(some):
        return
    own = keys[some]
    order = np.argsort(own, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(own[order]) != 0))
    for at, until in zip(first.tolist(), [*first[1:].tolist(), len(order)], strict=True):
        mine = some[order[at:until]]
        yield int(keys[mine[0]]), mine


def nesting_order(begin_ns: Times, end_ns: Times) -> Indices:
    """The order a ``Nest`` wants: by begin, and of those that begin together the longest first."""
    order: Indices = np.lexsort((-end_ns, begin_ns))
    return order


def _parents(begin_ns: Times, end_ns: Times) -> Indices:
    parent = np.full(len(begin_ns), -1, dtype=np.int64)
    open_: list[int] = []
    ends = end_ns.tolist()
    for position, begin in enumerate(begin_ns.tolist()):
        while open_ and ends[open_[-1]] <= begin:
            open_.pop()
        if open_:
            parent[position] = open_[-1]
        open_.append(position)
    return parent
