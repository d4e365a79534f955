"""A tool in a namespace of its own, with Linux's real unshare where it is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from moeprof.capturing import namespace
from tests.capturing import fakes

PROCESSES = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        print(open(f"/proc/{pid}/environ").read())
    except OSError:
        pass
"""


def test_no_other_process_is_seen(tmp_path: Path) -> None:
    """Without the namespace the sibling's variable is seen; with it (where allowed) it is not."""
    environment = {"PATH": os.environ["PATH"]}
    sibling = subprocess.Popen(["sleep", "60"], env={**environment, "SIBLING": "siblingsecret"})
    try:
        before = namespace.hiding(environment)
        seen = [
            subprocess.run(
                [*prefix, sys.executable, "-c", PROCESSES],
                env=environment,
                capture_output=True,
                text=True,
            )
            for prefix in ((), before)
        ]
    finally:
        sibling.kill()
        sibling.wait()
    assert "siblingsecret" in seen[0].stdout
    assert seen[1].returncode == 0, seen[1].stderr
    assert ("siblingsecret" in seen[1].stdout) == (before == ())


def test_where_unshare_is_refused_or_missing_nothing_is_put_before(tmp_path: Path) -> None:
    assert namespace.hiding({"PATH": str(tmp_path)}) == ()
    fakes.program(
        tmp_path / "unshare", "echo 'unshare failed: Operation not permitted' >&2; exit 1"
    )
    assert namespace.hiding({"PATH": str(tmp_path)}) == ()
