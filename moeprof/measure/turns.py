"""Who is measured after whom, where several solutions are measured in one process.

At each turn every rival is measured once, in an order in which, over enough turns, each comes
directly after each other one equally often (a Williams design: n orders for an even number of
rivals, 2n for an odd one). So whatever a forward leaves behind, a warm cache, a hot chip, a slow
host, falls on all alike. Plain rotation would let the same rival follow the same other for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Rival = TypeVar("Rival")


def balanced_orders(count: int) -> tuple[tuple[int, ...], ...]:
    """The orders of 0 .. count - 1 to go through in turn; none for a count of 0."""
    zigzag = [(step + 1) // 2 if step % 2 else -(step // 2) for step in range(count)]
    orders = [tuple((place + shift) % count for place in zigzag) for shift in range(count)]
    if count % 2 and count > 1:  # an odd count needs each order's mirror image too
        orders = [each for order in orders for each in (order, order[::-1])]
    return tuple(orders)


def in_turn(rivals: Sequence[Rival], turn: int) -> tuple[Rival, ...]:
    """``rivals`` in the order of turn number ``turn``, from 0."""
    orders = balanced_orders(len(rivals))
    return tuple(rivals[place] for place in orders[turn % len(orders)]) if orders else ()
