"""What must not enter a record on the machine that runs the tests."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from pathlib import Path

from moeprof.machine.environment import library_versions

# a variable such as CI=true or LINK_MODE=copy names nobody, and records hold such words
LONGEST_PLAIN_WORD = 8


def private_words() -> set[str]:
    """Values of variables, names of user and host, paths; not what a record is meant to hold."""
    meant = {platform.python_version(), platform.machine(), *library_versions().values()}
    names = {getpass.getuser(), socket.gethostname(), platform.node()}
    paths = {str(Path.home()), os.getcwd()}
    values = {value for value in os.environ.values() if value and not _is_plain_word(value)}
    return ({*values} - meant) | names | paths


def _is_plain_word(value: str) -> bool:
    return value.isalpha() and len(value) <= LONGEST_PLAIN_WORD
