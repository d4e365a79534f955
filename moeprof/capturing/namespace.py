"""A tool in a process namespace of its own, where it sees no process but those that it starts.

Nsight Systems copies the environment of every process of the machine into its report, whoever
started it and whatever environment it was given itself (seen with 2025.3.1: a sibling's variables
lay in StringIds). In a namespace there is nothing to copy. Linux's ``unshare`` makes one where an
administrator allows user namespaces; elsewhere the report must be called what it is.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

OPTIONS = ("--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
PROBE_SECONDS = 10


def hiding(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What to put before a command so that it sees no other process; () where that cannot be."""
    unshare = shutil.which("unshare", path=environment.get("PATH"))
    if unshare is None:
        return ()
    command = (unshare, *OPTIONS, "--")
    try:
        tried = subprocess.run(
            [*command, "true"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return command if tried.returncode == 0 else ()
