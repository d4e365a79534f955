"""Two GPUs of one model are not one GPU: records say which, without saying its serial number."""

from __future__ import annotations

from dataclasses import replace

from moeprof.compare.comparable import Grade, reasons
from moeprof.machine.environment import card_of
from moeprof.records import Run
from moeprof.regression.judge import judge
from moeprof.regression.policy import Policy

LABELS = ("a", "b")


def on(run: Run, card: str | None) -> Run:
    return replace(run, environment=replace(run.environment, card=card))


def test_a_card_is_told_by_a_hash_of_its_uuid():
    uuid = "5a3c1e0e-8a7b-4b5d-9a6e-0123456789ab"
    card = card_of(uuid)
    assert card == card_of(uuid) and len(card) == 8
    assert card != card_of(uuid.replace("a", "b")) and card not in uuid
    assert card_of(None) is None


def test_compare_cautions_and_a_check_refuses(make_run):
    here, there, unknown = (on(make_run(), card) for card in ("11111111", "22222222", None))
    found = [reason for reason in reasons(here, there, LABELS) if reason.name == "card"]
    assert [reason.grade for reason in found] == [Grade.CAUTION]
    assert "11111111 for a, 22222222 for b" in found[0].sentence
    assert not [r for r in reasons(here, unknown, LABELS) if r.name == "card"]
    check = judge([here] * 12, [there] * 6, Policy())
    assert (check.comparable, check.exit_code) == (False, 2)
    assert "different cards" in check.against[0] and "--against REV" in check.against[0]
    assert judge([here] * 12, [here] * 6, Policy()).comparable
    assert judge([here] * 12, [unknown] * 6, Policy()).comparable
