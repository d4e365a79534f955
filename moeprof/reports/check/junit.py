"""A check as JUnit XML: a test case a quantity, so that a CI's test view lists stages.

A regression is a failure; what was not decided is skipped with its reason, which readers show and
do not count as failed. Sides that cannot be compared and a wrong result are one more case.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as xml

from moeprof.regression.values import Check, Finding
from moeprof.reports.check import phrases

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_junit(check: Check, text: str = "") -> str:
    """One document. text: the report for people, kept as the suite's output."""
    suite = xml.Element("testsuite", _suite_name(check))
    properties = xml.SubElement(suite, "properties")
    for label, sentence in (("verdict", check.verdict), *phrases.notes(check)):
        xml.SubElement(properties, "property", {"name": label, "value": _clean(sentence)})
    _add_gate(suite, check)
    for finding in check.findings:
        _add_case(suite, check, finding)
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for name, count in counts.items():
        suite.set(name, str(count))
    if text:
        xml.SubElement(suite, "system-out").text = _clean(text)
    root = xml.Element("testsuites", {name: str(count) for name, count in counts.items()})
    root.set("name", "moeprof check")
    root.append(suite)
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _suite_name(check: Check) -> dict[str, str]:
    return {
        "name": _clean(phrases.subject(check)),
        "timestamp": check.candidate.created[1][:19],  # ISO 8601 without a zone, as readers expect
        "time": "0",
    }


def _add_gate(suite: xml.Element, check: Check) -> None:
    """Whether there was anything to judge: the case that fails where no stage can."""
    case = xml.SubElement(
        suite, "testcase", {"classname": _class_name(check), "name": "comparable", "time": "0"}
    )
    if check.wrong_result:
        _add(case, "failure", phrases.headline(check), "wrong result")
    elif not check.comparable:
        _add(case, "error", phrases.headline(check), "not comparable")


def _add_case(suite: xml.Element, check: Check, finding: Finding) -> None:
    name = phrases.quantity_label(finding)
    seconds = (finding.candidate_us or 0.0) / 1e6
    case = xml.SubElement(
        suite,
        "testcase",
        {"classname": _class_name(check), "name": _clean(name), "time": f"{seconds:.9f}"},
    )
    said = f"{name}: {phrases.change(finding, check)}"
    if finding.verdict == "REGRESSED":
        causes = [phrases.cause_text(cause) for cause in check.causes_of(finding.quantity.stage)]
        kind = "severe regression" if finding.severe else "regression"
        _add(case, "failure", said, kind, (finding.reason, *causes, _limits(finding)))
    elif finding.verdict == "INCONCLUSIVE":
        _add(case, "skipped", f"inconclusive: {finding.reason}")
    else:
        xml.SubElement(case, "system-out").text = _clean(f"{finding.verdict} {said}")


def _limits(finding: Finding) -> str:
    return f"floors {phrases.floor_text(finding)}, p after Holm {phrases.p_text(finding.p_holm)}"


def _add(
    case: xml.Element, tag: str, message: str, kind: str = "", lines: tuple[str, ...] = ()
) -> None:
    child = xml.SubElement(case, tag, {"message": _clean(message)})
    if kind:
        child.set("type", kind)
    child.text = _clean("\n".join((message, *lines))) if lines else None


def _class_name(check: Check) -> str:
    """Readers group cases by what stands before the last dot."""
    solution = check.candidate.solution.replace(".", "_")
    return _clean(f"moeprof.{solution}.T{check.workload.seq_len}")


def _clean(text: str) -> str:
    """``text`` without characters that XML cannot hold."""
    return _NOT_XML.sub("", text)
