"""DeepSeek-V3's group-limited top-k, as the definition computes it, in numpy.

Which experts a token goes to decides how much work a forward has, so it is computed here once, on
the CPU, alike on every machine: scores are rounded from float64 to float32, because float32 ``exp``
differs in its last bit between processors. Ties go to the lower expert id (the definition leaves
them open).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moeprof.contract import ROUTING

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]

_DROPPED = np.finfo(np.float32).min


def select(
    logits: Float32Array, bias: Float32Array, routed_scaling_factor: float
) -> tuple[Int32Array, Float32Array]:
    """Global expert ids [T, 8] and their combine weights [T, 8], best biased score first.

    logits [T, E], bias [E]. The bias decides which experts are chosen, not their weights; the
    weights of a token are normalised over its 8 experts, local or not, times the scaling factor.
    """
    scores = _sigmoid(logits)
    pruned, _ = _prune(scores + bias)
    ids = np.argsort(-pruned, axis=1, kind="stable")[:, : ROUTING.top_k]
    chosen = np.take_along_axis(scores, ids, axis=1)
    total = chosen.sum(axis=1, keepdims=True, dtype=np.float32) + np.float32(1e-20)
    weights = chosen / total * np.float32(routed_scaling_factor)
    return ids.astype(np.int32), weights.astype(np.float32)


def decision_margin(logits: Float32Array, bias: Float32Array) -> Float32Array:
    """[T]: by how much biased score the closest decision was taken, of groups or of experts.

    A kernel that rounds the sigmoid otherwise may choose otherwise where this is about 1e-7.
    """
    pruned, group_margin = _prune(_sigmoid(logits) + bias)
    return np.minimum(group_margin, _gap(pruned, ROUTING.top_k))


def _sigmoid(logits: Float32Array) -> Float32Array:
    with np.errstate(over="ignore"):  # exp of a very negative logit is inf: the score is 0
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _prune(biased: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Scores [T, E] with those of dropped groups at the lowest float, and the group margin [T]."""
    tokens, experts = biased.shape
    grouped = biased.reshape(tokens, ROUTING.num_groups, experts // ROUTING.num_groups)
    best_two = np.partition(grouped, -2, axis=2)[:, :, -2:]
    group_score = best_two[:, :, 0] + best_two[:, :, 1]
    kept = np.argsort(-group_score, axis=1, kind="stable")[:, : ROUTING.topk_groups]
    keep = np.zeros(group_score.shape, dtype=bool)
    np.put_along_axis(keep, kept, True, axis=1)
    pruned = np.where(keep[:, :, None], grouped, _DROPPED).reshape(tokens, experts)
    return pruned, _gap(group_score, ROUTING.topk_groups)


def _gap(scores: Float32Array, count: int) -> Float32Array:
    """[T]: the ``count``-th largest minus the next one."""
    if scores.shape[1] == count:
        return np.full(len(scores), np.inf, dtype=np.float32)
    ordered = np.partition(scores, (-count - 1, -count), axis=1)
    with np.errstate(over="ignore"):  # the next one may be a dropped group's lowest float
        return ordered[:, -count] - ordered[:, -count - 1]
