"""Looking for nsys and ncu: where, whether they run, whether they are new enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.capturing import find as finder
from moeprof.capturing.find import NCU, NSYS, Kind, candidates, find, read_version
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.machine import capabilities
from tests.capturing import fakes


@pytest.fixture
def kind(tmp_path: Path) -> Kind:
    """nsys, looked for below a folder of the test's own."""
    places = (f"{tmp_path}/cuda*/bin", f"{tmp_path}/nsight-compute/*/host/target-linux-*")
    return replace(NSYS, places=places)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (fakes.NSYS_VERSION, "2025.3.1.90"),
        (fakes.NCU_VERSION, "2025.3.1.0"),
        ("NVIDIA Nsight Systems version 2021.1.3.14-b695ea9", "2021.1.3.14"),
        ("Version: 2026.1", "2026.1"),
        ("GNU bash, version 5.2.15(1)-release", None),
        ("", None),
    ],
)
def test_versions_are_read(answer: str, version: str | None) -> None:
    assert read_version(answer) == version


def test_path_comes_first_then_cuda_then_the_newest(tmp_path: Path, kind: Kind) -> None:
    on_path = fakes.nsys(tmp_path / "bin/nsys")
    home = fakes.nsys(tmp_path / "home/bin/nsys")
    nine, ten = (
        fakes.nsys(tmp_path / f"nsight-compute/{version}/host/target-linux-x64/nsys")
        for version in ("2025.9.0", "2025.10.0")
    )
    found = list(candidates(kind, {"PATH": str(on_path.parent), "CUDA_HOME": f"{home.parents[1]}"}))
    assert found == [on_path, home, ten, nine]
    assert find(kind, environ={"PATH": ""}).path == ten
    assert find(kind, environ={"PATH": str(on_path.parent)}).version == "2025.3.1.90"


def test_a_candidate_that_will_not_do_gives_way_to_one_that_does(
    tmp_path: Path, kind: Kind
) -> None:
    """CUDA's own bin/nsys is a script that only says that the real one is missing."""
    stub = "echo 'Error: Nsight Systems 2025.3.2 has not been installed'; exit 1"
    fakes.program(tmp_path / "cuda-13.0/bin/nsys", stub)
    real = fakes.nsys(tmp_path / "nsight-compute/2025.3.1/host/target-linux-x64/nsys")
    assert find(kind, environ={}).path == real
    real.unlink()
    with pytest.raises(EnvironmentMissing, match="nsys does not run: Error: Nsight Systems 2025"):
        find(kind, environ={})


def test_nothing_found_says_how_to_get_it(kind: Kind) -> None:
    with pytest.raises(EnvironmentMissing) as raised:
        find(kind, environ={"PATH": ""})
    assert str(raised.value) == (
        "nsys (Nsight Systems) is neither on PATH nor in the folders of CUDA and Nsight; "
        "apt-get install nsight-systems-cli (from NVIDIA's CUDA repository), or give its path "
        "with --nsys"
    )


def test_one_that_is_too_old_is_named_with_what_is_expected(tmp_path: Path) -> None:
    old = fakes.nsys(tmp_path / "nsys", version="NVIDIA Nsight Systems version 2022.4.2.1-x")
    with pytest.raises(EnvironmentMissing, match=r"is Nsight Systems 2022\.4\.2\.1; expected 2024"):
        find(NSYS, old)
    old = fakes.ncu(tmp_path / "ncu", version="Version 2024.2.9.0 (build 1)")
    with pytest.raises(EnvironmentMissing, match=r"Compute 2024\.2\.9\.0; expected 2024\.3 or lat"):
        find(NCU, old)
    just = fakes.ncu(tmp_path / "ncu", version="Version 2024.3.0.0 (build 1)")
    assert find(NCU, just).version == "2024.3.0.0"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("head -c 3000 /dev/urandom", "does not answer as Nsight Systems"),
        ("exit 0", "does not answer as Nsight Systems: it prints nothing"),
        ("echo broken >&2; exit 3", "does not run: broken"),
        ("kill -SEGV $$", "does not run: exit -11"),
        ("sleep 60", "no answer to --version in 1 s"),
    ],
    ids=["garbage", "silent", "fails", "crashes", "hangs"],
)
def test_another_program_of_that_name_is_one_line(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "ANSWER_SECONDS", 1)
    other = fakes.program(tmp_path / "nsys", body)
    with pytest.raises(EnvironmentMissing, match=words) as raised:
        find(NSYS, other)
    assert "\n" not in str(raised.value)


def test_a_program_that_is_no_executable_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "nsys"
    script.write_text("not a program")
    script.chmod(0o755)
    with pytest.raises(EnvironmentMissing, match="does not run: Exec format error"):
        find(NSYS, script)


@pytest.mark.parametrize("what", ["missing", "folder", "file"])
def test_a_given_path_that_is_no_program_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    if what == "folder":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    with pytest.raises(UsageError, match="is no program; expected the path of nsys; leave out"):
        find(NSYS, path)


def test_doctor_lists_a_tool_with_its_version_or_with_what_stands_in_the_way(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    missing = capabilities._tool(kind, "captures")
    assert (missing.ok, missing.found) == (False, "not found")
    assert missing.install == NSYS.install
    path = tmp_path / "cuda-13/bin/nsys"
    fakes.nsys(path, version="NVIDIA Nsight Systems version 2021.3.1")
    old = capabilities._tool(kind, "captures")
    assert not old.ok and old.found.endswith("is Nsight Systems 2021.3.1; expected 2024.4 or later")
    fakes.nsys(path)
    found = capabilities._tool(kind, "captures")
    assert found.ok and found.found == f"Nsight Systems 2025.3.1.90, {path}"
