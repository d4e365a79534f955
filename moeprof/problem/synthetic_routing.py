"""Router outputs made up for a purpose: where tokens go, how evenly, how locally.

Each function maps a generator, a definition and the workload's size to logits [T, E] float32; the
bias is drawn first. In the random ones it is taken out of the scores again, so that it must be
added for the right choice and yet favours no expert: a bias of deviation 0.02 alone makes some
experts three times as busy as others. A token whose choice hangs on less than ``DECISIVE_MARGIN``
is redrawn: kernels that round the sigmoid differently then still agree on every expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from moeprof.contract import ROUTING
from moeprof.definition import Definition, Workload
from moeprof.problem.blobs import round_to_bfloat16
from moeprof.problem.group_topk import Float32Array, decision_margin

DECISIVE_MARGIN = 1e-5
BIAS_DEVIATION = 0.02
_CHOSEN_LOGIT, _OTHER_LOGIT, _JITTER = 2.0, -2.0, 0.1
_LEAST_SCORE = 1e-4  # a score stays inside (0, 1) when the bias is taken out
_ZIPF_SPREAD = 0.5
_GUMBEL_MEAN, _GUMBEL_VARIANCE = 0.5772156649015329, math.pi**2 / 6


def bias(generator: np.random.Generator, definition: Definition) -> Float32Array:
    """[E]: normals of deviation 0.02, each exactly bfloat16."""
    normals = generator.standard_normal(definition.constants["num_experts"])
    return round_to_bfloat16((BIAS_DEVIATION * normals).astype(np.float32))


def uniform(
    generator: np.random.Generator, definition: Definition, workload: Workload, bias: Float32Array
) -> Float32Array:
    """Biased scores are sigmoids of standard normals: every expert is as likely as any other."""
    experts = definition.constants["num_experts"]
    return _decisive(lambda rows: generator.standard_normal((rows, experts)), workload, bias)


def zipf(
    generator: np.random.Generator,
    definition: Definition,
    workload: Workload,
    bias: Float32Array,
    skew: float,
) -> Float32Array:
    """Expert popularity falls as rank to the power -skew, ranks dealt to experts at random.

    Gumbel noise on log-popularity makes the top k a draw without replacement in proportion to
    popularity; the sum is then scaled to mean 0 and deviation 0.5, which keeps its order and keeps
    the sigmoid out of saturation. The group limit bends the law where S is large.
    """
    experts = definition.constants["num_experts"]
    log_popularity = -skew * np.log(generator.permutation(experts) + 1.0)
    mean = log_popularity.mean() + _GUMBEL_MEAN
    deviation = math.sqrt(float(log_popularity.var()) + _GUMBEL_VARIANCE)

    def draw(rows: int) -> np.ndarray:
        noise = generator.gumbel(size=(rows, experts))
        return np.asarray(_ZIPF_SPREAD * (noise + log_popularity - mean) / deviation)

    return _decisive(draw, workload, bias)


def balanced(
    generator: np.random.Generator, definition: Definition, workload: Workload, _: Float32Array
) -> Float32Array:
    """Token counts of any two experts differ by at most 1, those of two groups by at most 2.

    Every second token goes to the even groups, the others to the odd ones, with two experts in
    each of the four; each group deals its experts in a fixed shuffled order, two at a time.
    """
    group_size = definition.constants["num_experts"] // ROUTING.num_groups
    shuffled = np.argsort(generator.random((ROUTING.num_groups, group_size)), axis=1)
    turn = np.arange(workload.seq_len) + int(generator.integers(2))
    deal = 2 * (np.arange(workload.seq_len) // 2)  # tokens t and t + 1 use different groups
    chosen = np.empty((workload.seq_len, ROUTING.topk_groups, 2), dtype=np.int64)
    for position in range(ROUTING.topk_groups):
        group = 2 * position + turn % 2
        for pick in range(2):
            chosen[:, position, pick] = (
                group * group_size + (shuffled[group, (deal + pick) % group_size])
            )
    return _favour(generator, chosen.reshape(workload.seq_len, -1), definition)


def single(
    generator: np.random.Generator, definition: Definition, workload: Workload, _: Float32Array
) -> Float32Array:
    """Every token on the same 8 experts, 2 of them local (more only where others are too few)."""
    axes = definition.constants
    local = np.zeros(axes["num_experts"], dtype=bool)
    local[workload.local_expert_offset :][: axes["num_local_experts"]] = True
    by_group = local.reshape(ROUTING.num_groups, -1)
    # random order first, so that the stable sorts break ties at random
    groups = generator.permutation(ROUTING.num_groups)
    groups = groups[np.argsort(by_group[groups].sum(axis=1), kind="stable")]
    chosen: list[int] = []
    for group in (groups[-1], *groups[: ROUTING.topk_groups - 1]):
        members = generator.permutation(by_group.shape[1])
        away_first = members[np.argsort(by_group[group, members], kind="stable")]
        picks = away_first[-2:] if group == groups[-1] else away_first[:2]
        chosen.extend(int(group * by_group.shape[1] + pick) for pick in picks)
    return _favour(generator, np.tile(np.array(chosen), (workload.seq_len, 1)), definition)


def _decisive(
    draw: Callable[[int], np.ndarray], workload: Workload, bias: Float32Array
) -> Float32Array:
    """Logits whose biased scores are the sigmoids of ``draw``'s rows, close choices redrawn."""

    def without_bias(rows: int) -> Float32Array:
        scores = 1.0 / (1.0 + np.exp(-draw(rows))) - bias
        scores = scores.clip(_LEAST_SCORE, 1.0 - _LEAST_SCORE)
        return np.asarray(np.log(scores / (1.0 - scores)), dtype=np.float32)

    logits = without_bias(workload.seq_len)
    close = np.flatnonzero(decision_margin(logits, bias) < DECISIVE_MARGIN)
    while close.size:
        logits[close] = without_bias(close.size)
        close = close[decision_margin(logits[close], bias) < DECISIVE_MARGIN]
    return logits


def _favour(
    generator: np.random.Generator, chosen: np.ndarray, definition: Definition
) -> Float32Array:
    """Logits [T, E] that make each token choose its row of ``chosen`` [T, 8], with unequal weights.

    Scores lie near 0.88 and 0.12, so neither jitter nor bias can change the choice.
    """
    shape = (len(chosen), definition.constants["num_experts"])
    logits = np.full(shape, _OTHER_LOGIT, dtype=np.float32)
    np.put_along_axis(logits, chosen, np.float32(_CHOSEN_LOGIT), axis=1)
    jitter = generator.uniform(-_JITTER, _JITTER, shape).astype(np.float32)
    return np.asarray(logits + jitter, dtype=np.float32)
