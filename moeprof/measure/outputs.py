"""What a solution may do with memory: fill its output and nothing else, and own what it returns.

The destination is a slice of a larger tensor whose rows before and after it hold a pattern, so that
a store past either end shows. Numbers are judged in ``numerics``; here only where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

# a row block of the largest kernels: a store of a whole block at either end hits the guard. Its
# bytes are a multiple of 512, so that the output is aligned as torch.empty aligns it
GUARD_ROWS = 128
PATTERN = 0x5A5A


@dataclass(frozen=True, slots=True, eq=False)
class Guards:
    """The rows before and after an output, int16 [GUARD_ROWS, H] each."""

    before: torch.Tensor
    after: torch.Tensor

    def problem(self) -> str | None:
        """What was written outside the output; None if nothing was."""
        found = {
            where: int((rows != PATTERN).any(dim=1).sum())
            for where, rows in (("before", self.before), ("after", self.after))
        }
        if not any(found.values()):
            return None
        told = " and ".join(f"{rows} rows {where} it" for where, rows in found.items() if rows)
        return f"the solution wrote outside its output: in {told}"

    def mend(self) -> None:
        """The pattern again, for the next solution that is judged by them."""
        self.before.fill_(PATTERN)
        self.after.fill_(PATTERN)


def guarded_output(shape: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, Guards]:
    """A destination [T, H] bfloat16 full of NaN, and what surrounds it."""
    rows, columns = shape
    whole = torch.empty((rows + 2 * GUARD_ROWS, columns), dtype=torch.bfloat16, device=device)
    bits = whole.view(torch.int16)
    guards = Guards(bits[:GUARD_ROWS], bits[GUARD_ROWS + rows :])
    guards.mend()
    output = whole[GUARD_ROWS : GUARD_ROWS + rows]
    output.fill_(float("nan"))
    return output, guards


def memory_problem(output: Any, given: Mapping[str, Any]) -> str | None:
    """What is wrong with the memory that ``output`` lies in; None also for what is no tensor."""
    if not isinstance(output, torch.Tensor):
        return None
    if type(output) is not torch.Tensor:  # a subclass may compute when it is read
        return f"output is a {type(output).__name__}, expected a plain torch.Tensor"
    if output.layout is not torch.strided:
        return f"output is {output.layout}, expected a dense tensor"
    if not output.is_contiguous():
        return f"output is not contiguous: strides {list(output.stride())}"
    place = output.untyped_storage().data_ptr()
    for name, value in given.items():
        if name == "output" or not isinstance(value, torch.Tensor):
            continue
        if place and value.untyped_storage().data_ptr() == place:
            return f"output lies in the memory of the input {name}"
    return None


def same_memory(one: Any, other: Any) -> bool:
    """Whether two results, both alive, lie in the same memory."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return False
    place = one.untyped_storage().data_ptr()
    return bool(place) and place == other.untyped_storage().data_ptr()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two outputs of one shape hold the same bits, NaN or not."""
    alike = one.shape == other.shape and one.dtype == other.dtype == torch.bfloat16
    return alike and torch.equal(one.view(torch.int16), other.view(torch.int16))
