"""Policies that can and cannot be meant, and what a check makes of its findings."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.errors import RecordError, UsageError
from moeprof.records import WorkloadIdentity
from moeprof.regression.policy import Policy, changed_fields, policy_from_json, policy_to_json
from moeprof.regression.values import (
    Baseline,
    BaselineFile,
    Cause,
    Check,
    Finding,
    Noise,
    Quantity,
    Shift,
    Side,
    Verdict,
)
from moeprof.storage.codec import decode, encode

WORKLOAD = WorkloadIdentity("moe_fp8", "b8f4f012", 7, 32, 2.5, {"hidden_size": 7168})
SIDE = Side("triton_v2", ("3f" * 32,), 6, ("2026-02-01", "2026-02-02"))


def finding(stage: str, verdict: Verdict, measure="busy", **changes) -> Finding:
    changes.setdefault("cleared", True)
    return Finding(Quantity(stage, measure), verdict, "because", (12, 6), **changes)


def check(*findings: Finding, **changes) -> Check:
    return Check(SIDE, SIDE, WORKLOAD, "NVIDIA H200", Policy(), False, findings, **changes)


@pytest.mark.parametrize(
    ("given", "verdict", "exit_code"),
    [
        (check(finding("gemm1", "SAME"), finding("", "SAME", "span")), "SAME", 0),
        (check(finding("gemm1", "IMPROVED"), finding("", "SAME", "span")), "IMPROVED", 0),
        (check(finding("gemm1", "REGRESSED"), finding("", "IMPROVED", "span")), "REGRESSED", 1),
        (check(finding("gemm1", "INCONCLUSIVE", cleared=False)), "INCONCLUSIVE", 3),
        (check(finding("gemm1", "INCONCLUSIVE", cleared=True)), "SAME", 0),
        (check(finding("gemm1", "INCONCLUSIVE", confirmation="awaited")), "INCONCLUSIVE", 3),
        (
            check(finding("a", "INCONCLUSIVE", cleared=False), finding("b", "REGRESSED")),
            "REGRESSED",
            1,
        ),
        (check(), "INCONCLUSIVE", 3),
        (check(comparable=False), "INCONCLUSIVE", 2),
        (check(wrong_result="0.3 match"), "REGRESSED", 1),
        (check(wrong_result="0.3 match", comparable=False), "REGRESSED", 1),
    ],
)
def test_the_verdict_and_exit_code_of_a_check(given, verdict, exit_code):
    assert (given.verdict, given.exit_code) == (verdict, exit_code)


def test_alerts_put_stages_before_the_forward_and_severe_ones_first():
    found = check(
        finding("", "REGRESSED", "span", severe=True),
        finding("gemm1", "REGRESSED"),
        finding("gemm2", "REGRESSED", severe=True),
        finding("gather", "SAME"),
    )
    assert [str(alert.quantity) for alert in found.alerts] == ["gemm2 busy", "gemm1 busy", "span"]
    assert found.regressed_stages == ("gemm2", "gemm1")
    assert found.stages == ("gemm1", "gemm2", "gather")


def test_a_stages_verdict_is_its_gravest_finding():
    found = check(
        finding("gemm1", "SAME"), finding("gemm1", "REGRESSED", "host"), finding("gather", "SAME")
    )
    assert found.decisive("gemm1").quantity.measure == "host"
    assert found.decisive("gather").verdict == "SAME" and found.decisive("other") is None
    assert found.finding("gemm1", "busy").verdict == "SAME" and found.finding("x", "busy") is None


def test_the_values_pass_through_json_unchanged():
    whole = check(
        finding("gemm1", "REGRESSED", ratio=1.03, confirmation="confirmed", clock="SM clock"),
        shifts=(Shift("gemm1", "host_late", 1.0, 2.0, 1.0, 0.1),),
        causes=(Cause("gemm1", "launch shape", "because", 1.5),),
        against=("the driver differs",),
    )
    noise = Noise(Quantity("gemm1", "busy"), 0.01, None, 12, 0.03)
    baseline = Baseline(
        "main", "2026-02-01", "triton_v2", "3f" * 32, WORKLOAD, "ab" * 32, "NVIDIA H200", None,
        Policy(), (BaselineFile("T7-1.json.gz", "cd" * 32),), (noise,), "first",
    )  # fmt: skip
    for value in (whole, baseline):
        assert decode(type(value), json.loads(json.dumps(encode(value)))) == value
    assert baseline.noise_of(Quantity("gemm1", "busy")) == noise
    assert baseline.noise_of(Quantity("gemm1", "host")) is None


@given(
    st.builds(
        Policy,
        processes=st.integers(3, 50),
        screening_alpha=st.floats(0.001, 0.5),
        relative_floor=st.floats(0.0, 0.05),
        confirm=st.booleans(),
        severe=st.floats(0.05, 1.0),
    )
)
def test_a_policy_passes_through_json_unchanged(policy):
    document = json.loads(json.dumps(policy_to_json(policy)))
    assert policy_from_json(document) == policy
    assert set(changed_fields(policy)) == {
        field.name
        for field in fields(Policy)
        if getattr(policy, field.name) != getattr(Policy(), field.name)
    }


def test_a_policy_keeps_its_defaults_where_a_file_says_nothing():
    assert policy_from_json({"severe": 0.1}) == replace(Policy(), severe=0.1)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"proceses": 5}, "proceses is an unknown key"),
        ({"processes": 2}, "processes of the policy is 2; expected 3 to"),
        ({"processes": "6"}, "processes is text; expected an integer"),
        ({"screening_alpha": 0.9}, "screening_alpha of the policy is 0.9"),
        ({"severe": 0.01}, "severe of the policy is 0.01; expected 0.02 to"),
        ({"relative_floor": -0.1}, "relative_floor of the policy is -0.1"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_name(document, error):
    with pytest.raises((RecordError, UsageError)) as raised:
        policy_from_json(document)
    assert error in str(raised.value) and "\n" not in str(raised.value)
