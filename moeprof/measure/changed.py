"""Other values in the same inputs: what tells a solution that computes from one that remembers.

A forward is called again and again on the same tensors, so a solution could keep a result, a
routing or a permutation by the address of its inputs. Here hidden states and routing are changed
where they lie, by a change that keeps every input a valid one:

    tokens    each gets the row of another one, some rows twice, so that counts per expert change
    hidden    moved by one place along the features, scales as they were
    logits    of the chosen experts raised by different amounts: the same choice, other weights

Weights stay: keeping what was made of them is what a server does when it loads a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

CHANGED = ("routing_logits", "hidden_states", "hidden_states_scale")
_LEAST, _MOST = 0.25, 1.0  # added to the logits of the chosen experts


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """source [T] int64: whose row each token gets. chosen [T, 8] int64: its experts before."""

    source: torch.Tensor
    chosen: torch.Tensor


def plan_change(reference: Mapping[str, Any]) -> Change:
    """A change of the inputs of which ``reference`` holds the reference's tensors.

    A token with a local expert stays among the sources, so that there is local work as before.
    """
    chosen = reference["topk_ids"].long()
    tokens = len(chosen)
    source = (torch.arange(tokens, device=chosen.device) + tokens // 2) % tokens
    twins = torch.arange(1, max(tokens // 2, 1), 2, device=chosen.device)
    source[twins] = source[twins - 1]
    local = reference["pair_token"][:1].long()
    if len(local) and not bool((source == local).any()):
        source[-1:] = local
    return Change(source, chosen)


@contextmanager
def changed(given: Mapping[str, Any], change: Change) -> Iterator[None]:
    """The inputs changed in place within, and as they were after it."""
    kept = {name: given[name].clone() for name in CHANGED}
    try:
        _write(given, change)
        yield
    finally:
        for name, values in kept.items():
            given[name].copy_(values)


def _write(given: Mapping[str, Any], change: Change) -> None:
    logits, hidden, scale = (given[name] for name in CHANGED)
    amounts = torch.linspace(_LEAST, _MOST, change.chosen.shape[1], device=logits.device)
    raised = logits.scatter_add(1, change.chosen, amounts.expand(change.chosen.shape))
    logits.copy_(raised[change.source])
    bits = hidden.view(torch.uint8)  # torch indexes no float8
    bits.copy_(bits[change.source].roll(1, dims=1))
    scale.copy_(scale[:, change.source])
