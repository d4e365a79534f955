"""A pytest plugin: the ``moeprof`` marker checks a solution against its baseline as a test.

    @pytest.mark.moeprof(solution="kernels/mine.py", max_regression=0.03)
    def test_speed(moeprof):
        assert moeprof.check.verdict in ("SAME", "IMPROVED")    # optional: a regression has failed

Loaded with every pytest run where moeprof is installed, so it imports nothing of moeprof before a
marked test runs. Measurements hold the device's lock (``checking.rounds.device_alone``): workers of
pytest-xdist wait for each other. Left out: skipping by anything but a missing baseline; an
inconclusive check is skipped, not passed, unless the marker asks for a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moeprof.regression.values import Check

MARKER = "moeprof"
PROPERTY = "moeprof"  # of a report: (PROPERTY, headline), which xdist carries and JUnit shows
HELP = (
    "moeprof(solution, max_regression=None, baseline=None, num_tokens=None, processes=None, "
    "inconclusive='skip'): check a solution's stages against its baseline on this GPU; slower by "
    "more than the fraction max_regression fails the test"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the marker. inconclusive: 'skip' or 'fail'."""

    solution: str
    max_regression: float | None = None
    baseline: str | None = None
    num_tokens: int | None = None
    processes: int | None = None
    inconclusive: str = "skip"


@dataclass(slots=True)
class Moeprof:
    """What the fixture gives. check: None in a test without the marker."""

    check: Check | None = None


FOUND = pytest.StashKey[Moeprof]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("moeprof", "checks of solutions against their baselines")
    group.addoption(
        "--moeprof-traces", metavar="DIR", help="Where baselines lie [default: rootdir/traces]."
    )
    group.addoption(
        "--moeprof-require-baseline",
        action="store_true",
        help="Fail, not skip, where this GPU has no baseline.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", HELP)


@pytest.fixture
def moeprof(request: pytest.FixtureRequest) -> Moeprof:
    """The check of the test's marker, as ``moeprof.check``."""
    node: pytest.Item = request.node
    return node.stash.setdefault(FOUND, Moeprof())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """The check comes before the test's own body, which may look at it."""
    marker = item.get_closest_marker(MARKER)
    if marker is not None:
        _run(item, marker)
    return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line a check, also of those that passed."""
    told = [
        (report.nodeid, value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if told:
        terminalreporter.section("moeprof")
        for nodeid, headline in sorted(told):
            terminalreporter.write_line(f"{nodeid}: {headline}")


def _run(item: pytest.Item, marker: pytest.Mark) -> None:
    from moeprof.errors import MoeprofError

    try:
        asked = Asked(*marker.args, **marker.kwargs)
    except TypeError as error:
        pytest.fail(f"the marker moeprof: {error}; it is {HELP}", pytrace=False)
    try:
        check = _checked(item, asked)
    except MoeprofError as error:
        pytest.fail(f"moeprof: {error}", pytrace=False)
    _judge(item, asked, check)


def _checked(item: pytest.Item, asked: Asked) -> Check:
    """Measure and judge. Skips, or fails if asked to, where there is no baseline."""
    import sys

    from moeprof.checking.check import check_baseline, require_statistics
    from moeprof.checking.request import DEFAULT_SECONDS
    from moeprof.checking.trees import working_tree
    from moeprof.cli.asking import request_as_recorded
    from moeprof.cli.keeping import keep_check
    from moeprof.storage.baselines import open_baseline
    from moeprof.storage.checks import new_check_folder

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    given = item.config.getoption("--moeprof-traces")
    traces = Path(given) if given else item.config.rootpath / "traces"
    solution = _solution(item, asked.solution)
    tree = working_tree(solution)
    stored = open_baseline(_baseline(item, asked, traces))
    require_statistics()
    policy = _policy(asked, stored.baseline.policy)
    request = request_as_recorded(stored.runs[0], None, None, DEFAULT_SECONDS)
    folder = new_check_folder(traces, solution, request.seq_len)
    check = check_baseline(stored, tree, request, policy, folder, say)
    keep_check(traces, check, folder.path)
    return check


def _solution(item: pytest.Item, given: str) -> str:
    """A file beside the test or below rootdir, else one of moeprof's own solutions."""
    for folder in (item.path.parent, item.config.rootpath):
        if (folder / given).is_file():
            return str(folder / given)
    return given


def _baseline(item: pytest.Item, asked: Asked, traces: Path) -> Path:
    """The folder of the baseline of this machine."""
    from moeprof.errors import UsageError
    from moeprof.storage import baselines

    root = traces / "baselines"
    devices = _devices()
    own = [
        entry
        for entry in baselines.entries(root)
        if entry.baseline is not None
        and not entry.is_history
        and entry.baseline.device in devices
        and asked.num_tokens in (None, entry.baseline.workload.seq_len)
        and _named(asked, entry.name, entry.gpu, entry.baseline.solution)
    ]
    if len(own) > 1:
        names = ", ".join(f"{entry.gpu}/{entry.name}" for entry in own)
        raise UsageError(f"{len(own)} baselines fit", "one", f"name it with baseline=: {names}")
    if own:
        return own[0].folder
    name = asked.baseline or f"{Path(asked.solution).stem} baseline"
    tokens = f" of T = {asked.num_tokens}" if asked.num_tokens is not None else ""
    reason = (
        f"there is no {name}{tokens} for {devices[0]} in {root.name}; "
        f"moeprof baseline record --solution {asked.solution} makes one"
    )
    if item.config.getoption("--moeprof-require-baseline"):
        pytest.fail(f"moeprof: {reason}", pytrace=False)
    pytest.skip(f"moeprof: {reason}")


def _named(asked: Asked, name: str, gpu: str, solution: str) -> bool:
    if asked.baseline is not None:
        return asked.baseline in (name, f"{gpu}/{name}")
    return solution == Path(asked.solution).stem or name.startswith(f"{Path(asked.solution).stem}-")


def _devices() -> tuple[str, ...]:
    """What can be measured here by the names in records: the GPU, if there is one, and the CPU."""
    import importlib.util

    from moeprof.machine.environment import processor_name

    found = [processor_name()]
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            found.insert(0, torch.cuda.get_device_name())
    return tuple(found)


def _policy(asked: Asked, stored: Any) -> Any:
    """The baseline's, with the marker's floor: what is slower by less does not fail."""
    from dataclasses import replace

    policy = stored if asked.processes is None else replace(stored, processes=asked.processes)
    if asked.max_regression is None:
        return policy
    floor = asked.max_regression
    return replace(
        policy,
        relative_floor=floor,
        host_relative_floor=max(floor, policy.host_relative_floor),
        severe=max(floor, policy.severe),
    )


def _judge(item: pytest.Item, asked: Asked, check: Check) -> None:
    from moeprof.cli.check_outputs import plain_text
    from moeprof.reports.check.phrases import headline

    item.stash.setdefault(FOUND, Moeprof()).check = check
    item.user_properties.append((PROPERTY, headline(check)))
    if check.verdict == "INCONCLUSIVE" and check.comparable and asked.inconclusive == "skip":
        pytest.skip(f"moeprof: {headline(check)}")
    if check.exit_code:
        pytest.fail(plain_text(check), pytrace=False)
