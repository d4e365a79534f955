"""Rules that tell stages by kernel names: what a rules file (TOML) says, checked and compiled.

    name = "my MoE layer"

    [[rule]]                       # the first rule that applies to an operation decides
    kernel = "moe_align_block"     # regular expression, searched in the operation's name
    step = "prepare_moe_input"     # one of the seven steps, or several joined by '+'

    [[rule]]
    kernel = "fused_moe_kernel"
    steps = ["gemm1", "gemm2"]     # of the matches in one pass through the steps, in order;
                                   # further ones are the last

    [[rule]]
    kernel = "group_quant"
    step = "swiglu_quant"
    after = "gemm1"                # only where the step last seen is gemm1 or a later one,
    before = "gemm2"               # and none from gemm2 on
    at_most = 1                    # so often in one pass through the steps

    [[rule]]
    kernel = "FillFunctor"
    joins = "next"                 # belongs to what is launched right after it ("previous": before)

    [[rule]]
    call = "^cudaMemcpyAsync"      # the launching API call's name; range: the text of a range
    range = "my gather"            # of host code around it. All that a rule gives must match
    step = "gather"

``needs`` (steps without which a forward is not whole, by default those of the two GEMMs that the
file names) and ``others`` (names of rows for work that is no step) may stand at the top. Patterns
are bounded, so that no file and no capture can keep the search busy: see ``compiled``.

How rules are applied along a capture is ``walk``'s, which file fits is ``fit``'s.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from re import _constants as opcodes  # type: ignore[attr-defined]  # the parse tree has no
from re import _parser as parser  # type: ignore[attr-defined]  # public name
from typing import Any, Literal

from moeprof.contract import STEPS
from moeprof.errors import UsageError, nearest

LONGEST_PATTERN, LONGEST_NAME, LARGEST_FILE, MOST_RULES = 300, 1_000, 1 << 20, 60
MOST_REPEATS, UNBOUNDED, MOST_CHOICES = 2, 20, 1_000
STEP_NUMBER: Mapping[str, int] = {str(step): number for number, step in enumerate(STEPS)}
_TOP, _RULE = (
    ("name", "needs", "others", "rule"),
    ("kernel", "call", "range", "step", "steps", "joins", "after", "before", "at_most"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; see the module. labels: in order of match, empty for one that joins."""

    labels: tuple[str, ...] = ()
    kernel: re.Pattern[str] | None = None
    call: re.Pattern[str] | None = None
    range: re.Pattern[str] | None = None
    joins: Literal["", "next", "previous"] = ""
    after: str = ""
    before: str = ""
    at_most: int | None = None

    @property
    def is_landmark(self) -> bool:
        """Whether it names a step wherever it matches."""
        return bool(self.labels) and not self.after and not self.before


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one file. needs: every whole forward has them; others: rows that are no step."""

    name: str
    rules: tuple[Rule, ...]
    needs: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of the steps; what is no step last."""
        named = dict.fromkeys(label for rule in self.rules for label in rule.labels)
        return tuple(sorted(named, key=lambda label: step_span(label) or (len(STEPS),) * 2))


def step_span(label: str) -> tuple[int, int] | None:
    """Numbers of the first and last step of ``gemm1+swiglu_quant``; None if it is not of steps."""
    numbers = [STEP_NUMBER.get(part) for part in label.split("+")]
    if None in numbers:
        return None
    known = [number for number in numbers if number is not None]
    return min(known), max(known)


def compiled(pattern: Any, where: str) -> re.Pattern[str]:
    """A regular expression that cannot run away; UsageError otherwise.

    At most 300 characters, two unbounded repeats and 1,000 combinations of what is bounded; no
    repeat of a repeat, no alternation inside one, no reference back. The time then grows with at
    most the third power of a name's length, of which the first 1,000 characters are searched.
    """
    if not isinstance(pattern, str) or not pattern or len(pattern) > LONGEST_PATTERN:
        shown = f"{len(pattern)} characters" if isinstance(pattern, str) else repr(pattern)[:40]
        raise UsageError(f"{where} is {shown}", f"text of 1 to {LONGEST_PATTERN} characters")
    try:
        found = re.compile(pattern)
        repeats, choices = _cost(parser.parse(pattern), where)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{where}: {pattern!r:.60} is no regular expression ({error})") from None
    if repeats > MOST_REPEATS or choices > MOST_CHOICES:
        raise UsageError(
            f"{where}: {pattern!r:.60} could match in too many ways",
            f"at most {MOST_REPEATS} of *, + and {{n,}}, and few alternatives",
            "write what lies between as it is, or leave the rest of the name out",
        )
    return found


def searched(pattern: re.Pattern[str], name: str) -> bool:
    """Whether ``pattern`` occurs in the first 1,000 characters of ``name``."""
    return pattern.search(name, 0, LONGEST_NAME) is not None


def load_rules(path: Path) -> RuleSet:
    """The rules in a user's file. UsageError, with the line, for what is not as it should be."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"the rules {path} cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise UsageError(f"the rules {path} are larger than {LARGEST_FILE} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text", "a rules file (TOML)") from None
    return parse_rules(text, str(path))


def shipped_rules() -> tuple[RuleSet, ...]:
    """The rules that come with moeprof, by file name."""
    folder = files("moeprof.importing") / "rules"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(parse_rules((folder / name).read_text(), name) for name in found)


def parse_rules(text: str, where: str) -> RuleSet:
    """The rules in ``text``. where: what to call it in an error."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{where} is no TOML ({error})") from None
    _refuse_unknown(document, _TOP, where)
    entries = document.get("rule")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{where} holds no [[rule]]", do="docs/timelines.md shows one")
    if len(entries) > MOST_RULES:
        raise UsageError(f"{where} holds {len(entries)} rules", f"at most {MOST_RULES}")
    others = _texts(document.get("others", []), f"{where}: others")
    lines = _rule_lines(text)
    rules = tuple(
        _rule(entry, others, f"{where}, line {line}, rule {number}")
        for number, (entry, line) in enumerate(zip(entries, lines, strict=False), start=1)
    )
    needs = _needs(document, rules, where)
    name = document.get("name", Path(where).stem)
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 80:
        raise UsageError(f"{where}: name is {name!r:.60}", "a short text")
    return RuleSet(name, rules, needs, others)


def _rule(entry: Any, others: tuple[str, ...], where: str) -> Rule:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is no table", "[[rule]] and its keys below")
    _refuse_unknown(entry, _RULE, where)
    patterns = {
        key: compiled(entry[key], f"{where}, {key}")
        for key in ("kernel", "call", "range")
        if key in entry
    }
    if not patterns:
        raise UsageError(f"{where} matches nothing", "kernel, call or range")
    at_most = entry.get("at_most")
    if at_most is not None and (type(at_most) is not int or at_most < 1):
        raise UsageError(f"{where}, at_most is {at_most!r:.40}", "a whole number from 1 on")
    labels, joins = _outcome(entry, others, where)
    return Rule(
        labels=labels,
        kernel=patterns.get("kernel"),
        call=patterns.get("call"),
        range=patterns.get("range"),
        joins=joins,
        after=_bound(entry, "after", where),
        before=_bound(entry, "before", where),
        at_most=at_most,
    )


def _outcome(
    entry: Mapping[str, Any], others: tuple[str, ...], where: str
) -> tuple[tuple[str, ...], Literal["", "next", "previous"]]:
    """The labels that a rule gives, or what its operations join."""
    given = [key for key in ("step", "steps", "joins") if key in entry]
    if len(given) != 1:
        found = f"{where} gives {' and '.join(given) or 'no step'}"
        raise UsageError(found, "step, steps or joins")
    (key,) = given
    value = entry[key]
    if key == "joins":
        if value == "next" or value == "previous":
            return (), "next" if value == "next" else "previous"
        raise UsageError(f"{where}, joins is {value!r:.40}", "'next' or 'previous'")
    labels = _texts([value] if key == "step" else value, f"{where}, {key}")
    if not labels:
        raise UsageError(f"{where}, steps is empty", "one step or more")
    for label in labels:
        _require_step(label, others, f"{where}, {key}")
    return labels, ""


def _bound(entry: Mapping[str, Any], key: str, where: str) -> str:
    step = entry.get(key)
    if step is None:
        return ""
    if not isinstance(step, str) or step not in STEP_NUMBER:
        do = nearest(str(step)[:40], STEP_NUMBER)
        raise UsageError(f"{where}, {key} is {step!r:.40}", "a step", do)
    return step


def _require_step(label: str, others: tuple[str, ...], where: str) -> None:
    if label in others or step_span(label) is not None:
        return
    unknown = next((part for part in label.split("+") if part not in STEP_NUMBER), label)
    raise UsageError(
        f"{where}: {unknown!r:.60} is no step",
        "a step, steps joined by '+', or a name in others",
        nearest(unknown, STEP_NUMBER),
    )


def _needs(document: Mapping[str, Any], rules: tuple[Rule, ...], where: str) -> tuple[str, ...]:
    named = {part for rule in rules for label in rule.labels for part in label.split("+")}
    if "needs" not in document:
        return tuple(step for step in ("gemm1", "gemm2") if step in named)
    needs = _texts(document["needs"], f"{where}: needs")
    for step in needs:
        if step not in named:
            raise UsageError(f"{where}: no rule gives the needed {step!r:.60}", "a step of a rule")
    return needs


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(item, str) and item.strip() and item.isprintable() and len(item) <= 120
        for item in value
    ):
        raise UsageError(f"{where} is {value!r:.60}", "a list of short texts")
    return tuple(value)


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = next((key for key in table if key not in known), None)
    if unknown is not None:
        raise UsageError(f"{where}: unknown key {unknown!r:.60}", do=nearest(unknown, known))


def _rule_lines(text: str) -> Iterator[int]:
    """The line of each [[rule]]; 0 where they cannot be told (an inline table)."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*\[\[\s*[\"']?rule", line):
            yield number
    while True:
        yield 0


def _cost(tokens: Any, where: str, inside: bool = False) -> tuple[int, int]:
    """(unbounded repeats, product of all bounded choices); UsageError for what is worse."""
    repeats, choices = 0, 1
    for code, argument in tokens:
        bodies: list[Any] = []
        if code in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT, opcodes.POSSESSIVE_REPEAT):
            least, most, body = argument
            if inside:
                raise UsageError(f"{where} repeats a repeat", "repeats of single characters")
            if most > UNBOUNDED:
                repeats += 1
            else:
                choices *= most - least + 1
            repeated = _cost(body, where, inside=True)
            repeats, choices = repeats + repeated[0], choices * repeated[1]
        elif code is opcodes.SUBPATTERN:
            bodies = [argument[-1]]
        elif code is opcodes.BRANCH:
            if inside:
                raise UsageError(f"{where} repeats alternatives", "repeats of single characters")
            bodies = argument[1]
            choices *= len(bodies)
        elif code in (opcodes.ASSERT, opcodes.ASSERT_NOT):
            bodies = [argument[1]]
        elif code is opcodes.ATOMIC_GROUP:
            bodies = [argument]
        elif code in (opcodes.GROUPREF, opcodes.GROUPREF_EXISTS, opcodes.GROUPREF_IGNORE):
            raise UsageError(f"{where} refers back to a group", "a pattern without \\1")
        for body in bodies:
            found = _cost(body, where, inside)
            repeats, choices = repeats + found[0], choices * found[1]
    return repeats, choices
