"""Where Nsight Systems and Nsight Compute are, whether they run and whether they are new enough.

They are looked for on PATH, in CUDA's folder, in their own and in each other's: Nsight Systems also
ships inside Nsight Compute, where no PATH leads. CUDA's ``bin/nsys`` may be a script that only says
that the real one is not installed, so each candidate is run before it is believed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import EnvironmentMissing, UsageError

ANSWER_SECONDS = 30  # a first start from a network disk has been seen to take 8 s
_CUDA = ("/usr/local/cuda*/bin", "/opt/cuda*/bin")


@dataclass(frozen=True, slots=True)
class Kind:
    """One profiler as it can be found. oldest: (year, number) of the first release that will do."""

    name: str
    product: str
    places: tuple[str, ...]
    oldest: tuple[int, int]
    install: str


# the oldest are those that came with CUDA 12.6, the oldest CUDA that torch 2.11 is built for
NSYS = Kind(
    name="nsys",
    product="Nsight Systems",
    places=(
        *_CUDA,
        "/opt/nvidia/nsight-systems*/*/bin",
        "/opt/nvidia/nsight-systems*/*/target-linux-*",
        "/opt/nvidia/nsight-compute/*/host/target-linux-*",
        "/usr/local/cuda*/nsight-compute*/host/target-linux-*",
    ),
    oldest=(2024, 4),
    install="apt-get install nsight-systems-cli (from NVIDIA's CUDA repository)",
)
NCU = Kind(
    name="ncu",
    product="Nsight Compute",
    places=(*_CUDA, "/opt/nvidia/nsight-compute/*", "/usr/local/cuda*/nsight-compute*"),
    oldest=(2024, 3),
    install="apt-get install cuda-nsight-compute-13-0 (from NVIDIA's CUDA repository)",
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A profiler that runs. version: as it names itself, such as '2025.3.1'."""

    kind: Kind
    path: Path
    version: str


def find(kind: Kind, given: Path | None = None, environ: Mapping[str, str] | None = None) -> Tool:
    """``given``, else the first candidate that runs and is new enough.

    Raises UsageError for a ``given`` that is no program, EnvironmentMissing where none will do:
    one line that says what stands in the way and how to get it.
    """
    if given is not None:
        if not _is_program(given):
            raise UsageError(
                f"{given} is no program", f"the path of {kind.name}", f"leave out --{kind.name} "
                "to have it looked for"
            )  # fmt: skip
        return _checked(kind, given)
    problems: list[EnvironmentMissing] = []
    for path in candidates(kind, os.environ if environ is None else environ):
        try:
            return _checked(kind, path)
        except EnvironmentMissing as error:
            problems.append(error)
    if problems:
        raise problems[0]
    raise EnvironmentMissing(
        f"{kind.name} ({kind.product}) is neither on PATH nor in the folders of CUDA and Nsight",
        do=f"{kind.install}, or give its path with --{kind.name}",
    )


def candidates(kind: Kind, environ: Mapping[str, str]) -> Iterator[Path]:
    """Every program of that name, each once: PATH's first, then the newest of each place."""
    on_path = shutil.which(kind.name, path=environ.get("PATH", ""))
    homes = [environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    found = [Path(on_path)] if on_path else []
    found += [Path(home) / "bin" / kind.name for home in homes]
    found += find_all(kind.name, kind.places)
    yield from (path for path in dict.fromkeys(found) if _is_program(path))


def find_all(name: str, places: Sequence[str]) -> list[Path]:
    """``name`` in each of the folders ``places`` (absolute patterns), later versions first."""
    return [
        path
        for place in places
        for path in sorted(Path("/").glob(f"{place[1:]}/{name}"), key=_by_version, reverse=True)
    ]


def read_version(answer: str) -> str | None:
    """The version in what ``--version`` printed; None if that is another program's answer."""
    match = re.search(r"\b[Vv]ersion:?\s+(\d{4}\.\d+(?:\.\d+)*)", answer)
    return match.group(1) if match else None


def _checked(kind: Kind, path: Path) -> Tool:
    answer = _answer(kind, path)
    version = read_version(answer)
    if version is None:
        raise EnvironmentMissing(
            f"{path} does not answer as {kind.product}: {last_line(answer) or 'it prints nothing'}",
            do=f"{kind.install}, or give the path of another with --{kind.name}",
        )
    year, number = (int(part) for part in version.split(".")[:2])
    if (year, number) < kind.oldest:
        oldest = ".".join(map(str, kind.oldest))
        raise EnvironmentMissing(
            f"{path} is {kind.product} {version}",
            f"{oldest} or later",
            f"{kind.install}, or give the path of a later one with --{kind.name}",
        )
    return Tool(kind, path, version)


def _answer(kind: Kind, path: Path) -> str:
    """What it prints when asked for its version."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer to --version in {ANSWER_SECONDS} s"
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if done.returncode == 0:
            return done.stdout
        reason = last_line(done.stderr) or last_line(done.stdout) or f"exit {done.returncode}"
    raise EnvironmentMissing(
        f"{path} does not run: {reason}",
        do=f"{kind.install}, or give the path of another with --{kind.name}",
    )


def _by_version(path: Path) -> tuple[tuple[int, ...], ...]:
    """Sorts 2025.10 after 2025.9: the numbers of each part of the path."""
    return tuple(tuple(map(int, re.findall(r"\d+", part))) for part in path.parts)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def last_line(text: str) -> str:
    """The last line with anything in it, fit for an error message: printable and not long."""
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""


def printable(line: str) -> str:
    """``line`` without control characters and what is no text, at most 160 characters."""
    return "".join(c if c.isprintable() and c != "\ufffd" else " " for c in line).strip()[:160]
