"""What must not enter a record on the machine that runs the tests."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from pathlib import Path

from moeprof.machine.environment import library_versions

# a variable such as CI=true names nobody, and every JSON document holds these words
WORDS_OF_JSON = {"true", "false", "null"}


def private_words() -> set[str]:
    """Values of variables, names of user and host, paths; not what a record is meant to hold."""
    meant = {platform.python_version(), platform.machine(), *library_versions().values()}
    names = {getpass.getuser(), socket.gethostname(), platform.node()}
    paths = {str(Path.home()), os.getcwd()}
    return {*os.environ.values(), *names, *paths} - meant - WORDS_OF_JSON
