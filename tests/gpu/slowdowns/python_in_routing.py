"""routing does 20 us of Python first."""

from dataclasses import replace
from time import perf_counter_ns

from stages.routing.triton import routing
from stages.solutions.triton_v3 import SOLUTION as FAST

BUSY_NS = 20_000


def thinks_first(*given):
    until = perf_counter_ns() + BUSY_NS
    while perf_counter_ns() < until:
        pass
    return routing(*given)


SOLUTION = FAST.with_stage(0, replace(routing, function=thinks_first))
