"""Routings: the choice against a plain loop, the shape of synthetic ones, blobs and files."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.definition import Definition, Workload
from moeprof.errors import UsageError
from moeprof.problem.blobs import round_to_bfloat16, write_routing_blob
from moeprof.problem.dataset import Dataset, custom_workload, own_root
from moeprof.problem.group_topk import decision_margin, select
from moeprof.problem.routing import Routing, identify, make_routing, parse_spec
from moeprof.problem.synthetic_routing import DECISIVE_MARGIN

DATASET = Dataset(own_root())
TINY = DATASET.definition("tiny")
REAL = DATASET.definition("dsv3")
SYNTHETIC = ("uniform", "zipf:1.2", "balanced", "single")

seeds = st.integers(0, 2**31)
token_counts = st.integers(1, 90)
offsets = st.sampled_from(range(0, 57, 8))
any_offset = st.integers(0, 56)


def draw(text: str, definition: Definition, workload: Workload, seed: int = 0) -> Routing:
    return make_routing(parse_spec(text), definition, workload, seed, allow_no_local_work=True)


def counts(routing: Routing, experts: int) -> np.ndarray:
    ids, _ = select(routing.logits, routing.bias, 2.5)
    return np.bincount(ids.ravel(), minlength=experts)


def one_line(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# --- select ---


def choose_by_loop(logits: np.ndarray, bias: np.ndarray) -> tuple[set[int], dict[int, float]]:
    """The definition's choice for one token, in Python floats, and each expert's score."""
    experts = len(logits)
    size = experts // 8
    score = {e: 1 / (1 + float(np.exp(-np.float64(logits[e])))) for e in range(experts)}
    biased = {e: score[e] + float(bias[e]) for e in range(experts)}
    group_score = {
        g: sum(sorted(biased[e] for e in range(g * size, (g + 1) * size))[-2:]) for g in range(8)
    }
    kept = sorted(group_score, key=lambda g: group_score[g])[-4:]
    candidates = [e for e in range(experts) if e // size in kept]
    return set(sorted(candidates, key=lambda e: biased[e])[-8:]), score


@given(seeds, st.sampled_from([64, 256]), st.floats(0.01, 4), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_select_equals_a_loop(seed: int, experts: int, spread: float, bias_spread: float) -> None:
    generator = np.random.default_rng(seed)
    logits = (spread * generator.standard_normal((5, experts))).astype(np.float32)
    bias = (bias_spread * generator.standard_normal(experts)).astype(np.float32)
    ids, weights = select(logits, bias, 2.5)
    decided = decision_margin(logits, bias) > 1e-6  # closer ones are float32's to decide
    for token in np.flatnonzero(decided):
        chosen, score = choose_by_loop(logits[token], bias)
        assert set(ids[token].tolist()) == chosen
        total = sum(score[e] for e in chosen)
        expected = [2.5 * score[int(e)] / total for e in ids[token]]
        np.testing.assert_allclose(weights[token], expected, rtol=1e-5)
    assert decided.sum() >= 3


@given(seeds, st.floats(0.1, 10), st.floats(0.5, 60))
@settings(max_examples=60, deadline=None)
def test_select_invariants(seed: int, factor: float, spread: float) -> None:
    generator = np.random.default_rng(seed)
    logits = (spread * generator.standard_normal((20, 256))).astype(np.float32)
    bias = (0.02 * generator.standard_normal(256)).astype(np.float32)
    ids, weights = select(logits, bias, factor)
    assert ids.shape == weights.shape == (20, 8)
    assert (ids.dtype, weights.dtype) == (np.int32, np.float32)
    for row in ids:
        assert len(set(row.tolist())) == 8
        assert len({expert // 32 for expert in row.tolist()}) <= 4
    np.testing.assert_allclose(weights.sum(axis=1), factor, rtol=1e-5)


def test_select_equals_torch() -> None:
    """The definition's own semantics in torch, on the largest workload."""
    import torch

    workload = DATASET.workload_of_size(REAL, 14107)
    routing = draw("uniform", REAL, workload)
    namespace: dict[str, Any] = {}
    exec(REAL.reference, namespace)
    bias = torch.from_numpy(routing.bias).to(torch.bfloat16)
    dense = namespace["combine_weights"](torch.from_numpy(routing.logits), bias, 2.5)
    ids, weights = select(routing.logits, routing.bias, 2.5)
    ours = torch.zeros_like(dense).scatter_(1, torch.from_numpy(ids).long(), torch.tensor(weights))
    assert torch.equal(ours > 0, dense > 0)  # every choice of 14107 tokens: the margin is wide
    torch.testing.assert_close(ours, dense, rtol=1e-5, atol=0)


def test_the_bias_chooses_but_does_not_weigh() -> None:
    logits = np.zeros((1, 64), dtype=np.float32)
    bias = np.zeros(64, dtype=np.float32)
    bias[[0, 1, 8, 9, 16, 17, 24, 25]] = np.linspace(0.1, 0.8, 8)
    ids, weights = select(logits, bias, 2.5)
    assert ids[0].tolist() == [25, 24, 17, 16, 9, 8, 1, 0]
    np.testing.assert_array_equal(weights, np.float32(2.5 / 8))


def test_a_good_expert_of_a_dropped_group_is_not_chosen() -> None:
    logits = np.full((1, 64), -2.0, dtype=np.float32)
    for group in range(4):
        logits[0, [group * 8, group * 8 + 1]] = 1.0
    logits[0, 63] = 1.5  # the best expert, alone in its group
    assert select(logits, np.zeros(64, np.float32), 2.5)[0][0].tolist() == [
        0,
        1,
        8,
        9,
        16,
        17,
        24,
        25,
    ]


def test_extreme_logits_stay_finite() -> None:
    logits = np.full((2, 64), -200.0, dtype=np.float32)
    logits[1] = 200.0
    _, weights = select(logits, np.zeros(64, np.float32), 2.5)
    np.testing.assert_array_equal(weights, [[0.0] * 8, [2.5 / 8] * 8])


# --- synthetic routings ---


@given(st.sampled_from(SYNTHETIC), token_counts, offsets, seeds)
@settings(max_examples=60, deadline=None)
def test_every_synthetic_routing(text: str, tokens: int, offset: int, seed: int) -> None:
    workload = custom_workload(TINY, tokens, offset)
    routing = make_routing(parse_spec(text), TINY, workload, seed)
    assert routing.label == f"synthetic {text}"
    assert routing.logits.shape == (tokens, 64) and routing.bias.shape == (64,)
    assert routing.logits.dtype == routing.bias.dtype == np.float32
    assert np.array_equal(routing.bias, round_to_bfloat16(routing.bias))
    assert np.any(routing.bias != 0)
    assert decision_margin(routing.logits, routing.bias).min() >= DECISIVE_MARGIN
    identity = identify(routing, TINY, workload, "quantised", seed)
    assert identity.local_pairs >= 1
    assert sum(identity.tokens_per_expert) == identity.local_pairs
    assert identity.active_experts == sum(n > 0 for n in identity.tokens_per_expert)
    assert 1 <= identity.local_tokens <= min(tokens, identity.local_pairs)
    again = make_routing(parse_spec(text), TINY, workload, seed)
    assert np.array_equal(again.logits, routing.logits)


@given(token_counts, any_offset, seeds, st.sampled_from([TINY, REAL]))
@settings(max_examples=60, deadline=None)
def test_balanced_counts_differ_by_one(
    tokens: int, offset: int, seed: int, definition: Definition
) -> None:
    routing = draw("balanced", definition, custom_workload(definition, tokens, offset), seed)
    found = counts(routing, definition.constants["num_experts"])
    assert found.sum() == 8 * tokens
    assert found.max() - found.min() <= 1
    ranks = found.reshape(8, -1).sum(axis=1)
    assert ranks.max() - ranks.min() <= 2  # one token


@given(token_counts, any_offset, seeds)
@settings(max_examples=60, deadline=None)
def test_single_uses_eight_experts_two_of_them_local(tokens: int, offset: int, seed: int) -> None:
    workload = custom_workload(TINY, tokens, offset)
    routing = draw("single", TINY, workload, seed)
    assert sorted(counts(routing, 64))[-9:] == [0, *[tokens] * 8]
    identity = identify(routing, TINY, workload, "quantised", seed)
    assert (identity.active_experts, identity.local_pairs) == (2, 2 * tokens)


def test_uniform_favours_no_expert() -> None:
    """12,000 tokens: expected count 375 an expert, standard deviation about 19."""
    found = counts(draw("uniform", REAL, custom_workload(REAL, 12_000)), 256)
    assert abs(found - 375).max() < 5 * 19


def test_zipf_follows_its_popularity() -> None:
    found = {
        skew: np.sort(counts(draw(f"zipf:{skew}", REAL, custom_workload(REAL, 5_000)), 256))[::-1]
        for skew in (0, 0.5, 1)
    }
    assert found[0][0] < 1.6 * found[0][-1]
    # the law holds where the group limit and exhaustion do not bend it: ranks 64 and 128
    assert found[0.5][63] / found[0.5][127] == pytest.approx(2**0.5, rel=0.15)
    assert found[1][63] / found[1][127] == pytest.approx(2, rel=0.15)
    assert found[1][0] > 2 * found[0.5][0] > 8 * found[0][0]


@pytest.mark.parametrize("text", SYNTHETIC)
def test_default_seed_gives_every_workload_local_work(text: str) -> None:
    workloads = DATASET.workloads(REAL)
    assert len(workloads) == 19
    for workload in workloads:
        routing = make_routing(parse_spec(text), REAL, workload, 0, dataset=DATASET)
        assert identify(routing, REAL, workload, "quantised", 0).local_pairs >= 1


def test_a_draw_without_local_work_is_replaced() -> None:
    """zipf:1.2 at T=1: several draws miss the rank, and each is reproduced when allowed."""
    workload = DATASET.workload_of_size(REAL, 1)
    missed = draw("zipf:1.2", REAL, workload)
    taken = make_routing(parse_spec("zipf:1.2"), REAL, workload, 0)
    assert missed.attempt == 0 and taken.attempt > 0
    assert identify(missed, REAL, workload, "quantised", 0).local_pairs == 0
    assert identify(taken, REAL, workload, "quantised", 0).local_pairs > 0


def test_draws_depend_on_seed_and_workload_only() -> None:
    one, other = custom_workload(TINY, 9, 8), custom_workload(TINY, 9, 16)
    assert not np.array_equal(
        draw("uniform", TINY, one, 0).logits, draw("uniform", TINY, one, 1).logits
    )
    assert not np.array_equal(
        draw("uniform", TINY, one).logits, draw("uniform", TINY, other).logits
    )


def test_draws_are_the_same_in_every_process_and_version() -> None:
    """Pinned: records of other machines are compared by this hash."""
    workload = DATASET.workload_of_size(REAL, 14107)
    identity = identify(draw("uniform", REAL, workload), REAL, workload, "quantised", 0)
    assert (identity.local_pairs, identity.active_experts) == (13982, 32)
    assert identity.histogram_hash.startswith("f802a1fc")


# --- identity ---


def test_identity_by_hand() -> None:
    """Three tokens; experts 0 and 1 of groups 0..3 are chosen, 8 and 9 are this rank's."""
    logits = np.full((3, 64), -2.0, dtype=np.float32)
    logits[:2, [0, 1, 8, 9, 16, 17, 24, 25]] = 2.0
    logits[2, [32, 33, 40, 41, 48, 49, 56, 57]] = 2.0
    routing = Routing("by hand", logits, np.zeros(64, np.float32))
    workload = custom_workload(TINY, 3, 8)
    identity = identify(routing, TINY, workload, "harness", 5)
    assert identity.tokens_per_expert == (2, 2, 0, 0, 0, 0, 0, 0)
    assert (identity.local_pairs, identity.active_experts, identity.local_tokens) == (4, 2, 2)
    assert (identity.label, identity.weights_recipe, identity.seed) == ("by hand", "harness", 5)
    raw = b"".join(n.to_bytes(8, "little") for n in (2, 2, 0, 0, 0, 0, 0, 0, 8))
    assert identity.histogram_hash == hashlib.sha256(raw).hexdigest()
    elsewhere = identify(routing, TINY, replace(workload, local_expert_offset=16), "harness", 5)
    assert elsewhere.tokens_per_expert == identity.tokens_per_expert
    assert elsewhere.histogram_hash != identity.histogram_hash


# --- recorded and file ---


def recorded_dataset(root: Path) -> tuple[Dataset, Workload, Path]:
    """A dataset whose workload of 13 tokens names a blob, which is not there yet."""
    for folder in ("definitions", "workloads"):
        (root / folder / "moe").mkdir(parents=True)
        for source in (own_root() / folder / "moe").glob(f"{TINY.name}.*"):
            lines = source.read_text().splitlines(keepends=True)
            if folder == "workloads":
                data = json.loads(lines[2])
                for name in ("routing_logits", "routing_bias"):
                    spec = {
                        "type": "safetensors",
                        "path": "./blob/r.safetensors",
                        "tensor_key": name,
                    }
                    data["workload"]["inputs"][name] = spec
                lines[2] = json.dumps(data) + "\n"
            (root / folder / "moe" / source.name).write_text("".join(lines))
    (root / "blob").mkdir()
    dataset = Dataset(root)
    return dataset, dataset.workload_of_size(TINY, 13), root / "blob" / "r.safetensors"


def test_recorded_routing(tmp_path: Path) -> None:
    dataset, workload, path = recorded_dataset(tmp_path)
    absent = make_routing(parse_spec("auto"), TINY, workload, 0, dataset=dataset)
    assert absent.label == "synthetic uniform"
    one_line(
        lambda: make_routing(parse_spec("recorded"), TINY, workload, 0, dataset=dataset),
        "cannot read",
        "r.safetensors",
    )
    source = draw("balanced", TINY, workload, 3)
    write_routing_blob(path, source.logits, source.bias)
    for text in ("auto", "recorded"):
        read = make_routing(parse_spec(text), TINY, workload, 0, dataset=dataset)
        assert read.label == "recorded"
        assert np.array_equal(read.logits, source.logits)
        assert np.array_equal(read.bias, source.bias)


def test_recorded_routing_that_is_not_recorded() -> None:
    workload = DATASET.workload_of_size(TINY, 13)
    spec = parse_spec("recorded")
    one_line(lambda: make_routing(spec, TINY, workload, 0, dataset=DATASET), "no recorded routing")
    one_line(lambda: make_routing(spec, TINY, workload, 0), "no recorded routing")


@pytest.mark.parametrize(
    ("logits", "bias", "part"),
    [
        (np.zeros((12, 64)), np.zeros(64), "routing_logits in"),
        (np.zeros((13, 64)), np.zeros(63), "is [63]; expected [64]"),
        (np.full((13, 64), np.nan), np.zeros(64), "NaN or infinity"),
    ],
)
def test_a_blob_that_does_not_fit(
    tmp_path: Path, logits: np.ndarray, bias: np.ndarray, part: str
) -> None:
    dataset, workload, path = recorded_dataset(tmp_path)
    write_routing_blob(path, logits.astype(np.float32), bias.astype(np.float32))
    spec = parse_spec("auto")
    one_line(lambda: make_routing(spec, TINY, workload, 0, dataset=dataset), part)


def test_a_recorded_routing_without_local_work(tmp_path: Path) -> None:
    dataset, workload, path = recorded_dataset(tmp_path)
    elsewhere = draw("single", TINY, replace(workload, local_expert_offset=0))
    local = np.arange(64) // 8 == workload.local_expert_offset // 8
    logits = np.where(local, np.float32(-5), elsewhere.logits)
    write_routing_blob(path, logits, elsewhere.bias)
    one_line(
        lambda: make_routing(parse_spec("auto"), TINY, workload, 0, dataset=dataset),
        "'recorded' sends no token",
        "to experts 56 to 63",
        "--allow-no-local-work",
    )
    allowed = make_routing(
        parse_spec("auto"), TINY, workload, 0, dataset=dataset, allow_no_local_work=True
    )
    assert identify(allowed, TINY, workload, "quantised", 0).local_pairs == 0


@pytest.mark.parametrize("name", ["captured.npz", "captured.safetensors"])
def test_routing_from_a_file(tmp_path: Path, name: str) -> None:
    workload = custom_workload(TINY, 5, 8)
    source = draw("single", TINY, workload)
    path = tmp_path / name
    if name.endswith("npz"):
        unrounded = source.bias * np.float32(1.0009765625)
        np.savez(path, routing_logits=source.logits, routing_bias=unrounded)
    else:
        write_routing_blob(path, source.logits, source.bias)
    read = make_routing(parse_spec(f"file:{path}"), TINY, workload, 0)
    assert read.label == f"file {name}"  # no folder: labels go into records
    assert np.array_equal(read.logits, source.logits)
    assert np.array_equal(read.bias, source.bias)
    longer = custom_workload(TINY, 6, 8)
    one_line(
        lambda: make_routing(parse_spec(f"file:{path}"), TINY, longer, 0),
        "routing_logits",
        "is [5, 64]; expected [6, 64]",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("unifrom", "did you mean uniform"),
        ("", "known: "),
        ("zipf", "zipf:S with S from 0 to 10"),
        ("zipf:x", "zipf:S"),
        ("zipf:nan", "zipf:S"),
        ("zipf:-1", "zipf:S"),
        ("zipf:inf", "zipf:S"),
        ("uniform:3", "takes no argument"),
        ("file:", "file:PATH"),
        ("file", "file:PATH"),
    ],
)
def test_a_routing_that_cannot_be_meant(text: str, part: str) -> None:
    one_line(lambda: parse_spec(text), part)


def test_neither_torch_nor_triton_is_imported() -> None:
    code = "import sys, moeprof.problem.routing; print({'torch', 'triton'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
