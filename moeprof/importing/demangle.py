"""Mangled C++ names to what our own records hold, by the same function: ``__cxa_demangle``.

Nsight Systems spells template arguments its own way (``(int)8``, ``<unnamed>``, ``T2``), so a
kernel would have one name in a record and another in an imported capture. The mangled name is in
the export too, and libstdc++ turns it into exactly what PyTorch and thus our CUPTI pass print;
where that gives up (long CUTLASS names), both keep the mangled name.

The names come from a file that may be hostile, and 200 bytes can make the demangler write
gigabytes for minutes. So it runs in a child process with limits, which starts in 15 ms. A name at
which that ends is passed over, and what gets no answer keeps the name that the export gives.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable

Demangle = Callable[[list[str]], dict[str, str]]

MANGLED = re.compile(r"_Z[\w.$]{1,20000}", re.ASCII)
SECONDS = 2  # of processor time for 10,000 names; PyTorch's longest take a microsecond each
ATTEMPTS = 4

_PROGRAM = """
import ctypes, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
library = ctypes.CDLL("libstdc++.so.6")
demangle, free = library.__cxa_demangle, ctypes.CDLL(None).free
demangle.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 2, ctypes.POINTER(ctypes.c_int)]
demangle.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
status = ctypes.c_int()
for line in sys.stdin.buffer:
    name = line.rstrip()
    found = demangle(name, None, None, ctypes.byref(status))
    whole = ctypes.string_at(found)[:20000] if found else name
    free(found)
    sys.stdout.buffer.write(whole.replace(b"\\n", b" ") + b"\\n")
    sys.stdout.buffer.flush()
"""


def demangled(names: Iterable[str]) -> dict[str, str]:
    """What each mangled name among ``names`` stands for; itself where libstdc++ gives up.

    Names that are not mangled, and those that got no answer, are not in the result.
    """
    left = [name for name in names if MANGLED.fullmatch(name)]
    found: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        if not left:
            break
        answers = _ask(left).decode("utf-8", "replace").split("\n")[:-1]
        found.update(zip(left, answers, strict=False))
        left = left[len(answers) + 1 :]
    return found


def _ask(mangled: list[str]) -> bytes:
    """Lines that a child process wrote before it ended, however it ended."""
    seconds = SECONDS * (1 + len(mangled) // 10_000)
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(seconds)],
            input="\n".join(mangled).encode() + b"\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10 * seconds,  # the machine may be busy with other things
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        return error.stdout or b""
    except OSError:
        return b""
