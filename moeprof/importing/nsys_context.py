"""What an export says besides events: versions, GPUs, what the profiler itself complains of."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from moeprof.importing.left_out import LeftOut
from moeprof.importing.names import printable
from moeprof.importing.nsys_tables import (
    DIAGNOSTICS,
    EXPORT,
    GPUS,
    GRAPH,
    KNOWN_SCHEMAS,
    OVERHEAD,
    SYSTEM,
    Tables,
    Values,
    rows,
    usable,
)
from moeprof.importing.trace import Gpu, TraceSource

TOOL = "Nsight Systems"
ERROR = 3  # ENUM_DIAGNOSTIC_SEVERITY_LEVEL; 2 is said of healthy captures, too
MOST_DIAGNOSTICS = 5
VERSION = re.compile(r"[\d.]{1,32}", re.ASCII)
_LOST = re.compile(r"\b(drop|lost\b|overflow|discard)", re.IGNORECASE)
_PRIVATE = re.compile(r"\S*[/\\~@=$]\S*")


@dataclass(frozen=True, slots=True)
class Versions:
    """Of the export, and of the machine it was captured on; '' where it does not say."""

    source: TraceSource
    driver: str
    cuda: str
    notes: tuple[str, ...]


def versions(tables: Tables) -> Versions:
    """Versions that the export names; a note if its schema is not one that is known here."""
    export = _pairs(tables, EXPORT, ("EXPORT_PRODUCT_VERSION", "EXPORT_SCHEMA_VERSION"))
    system = _pairs(tables, SYSTEM, ("NvDriverVersion", "CudaDriverVersion"))
    schema = export.get("EXPORT_SCHEMA_VERSION", "")
    source = TraceSource(TOOL, export.get("EXPORT_PRODUCT_VERSION", ""), schema)
    cuda = system.get("CudaDriverVersion", "")
    if cuda.isdecimal():  # 13000 is 13.0
        cuda = f"{int(cuda) // 1000}.{int(cuda) % 1000 // 10}"
    return Versions(source, system.get("NvDriverVersion", ""), cuda, _doubt(schema))


def _doubt(schema: str) -> tuple[str, ...]:
    low, high = KNOWN_SCHEMAS
    parts = tuple(int(part) for part in schema.split(".")[:2] if part)
    if len(parts) == 2 and low <= parts <= high:
        return ()
    known = " to ".join(".".join(map(str, version)) for version in KNOWN_SCHEMAS)
    found = f"schema {schema}" if schema else "a schema that it does not name"
    return (f"the export has {found}; {known} are known here, so it was read by column names",)


def _pairs(tables: Tables, table: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Of a table of names and values those wanted, if the value is a version and nothing else."""
    found: dict[str, str] = {}
    for chunk in rows(tables, table):
        for name, value in zip(chunk.texts["name"], chunk.texts["value"], strict=True):
            if name in wanted and value is not None and VERSION.fullmatch(value):
                found.setdefault(name, value)
    return found


def gpus(tables: Tables) -> tuple[Gpu, ...]:
    """Every GPU that the export describes, by number."""
    found: dict[int, Gpu] = {}
    for chunk in rows(tables, GPUS):
        numbers = {name: column.tolist() for name, column in chunk.numbers.items()}
        for row, name in enumerate(chunk.texts["name"]):
            number, processors, major, minor, l2_bytes, memory_bytes = (
                value[row] if 0 <= value[row] < 1 << 60 else None for value in numbers.values()
            )
            if number is not None:
                found.setdefault(
                    number,
                    Gpu(
                        number=number,
                        name=printable(name or "", 100),
                        multiprocessors=processors,
                        compute_capability=None if major is None else f"{major}.{minor or 0}",
                        l2_bytes=l2_bytes,
                        memory_bytes=memory_bytes,
                    ),
                )
    return tuple(found[number] for number in sorted(found))


def overhead(tables: Tables, left_out: LeftOut) -> Values:
    """[J, 2] intervals in which the profiler held the program up, in order of start."""
    pieces = [np.empty((0, 2), dtype=np.int64)]
    for chunk in rows(tables, OVERHEAD):
        start, end = chunk.numbers["start"], chunk.numbers["end"]
        sound = usable(start, end)
        left_out.add("intervals of profiler overhead without usable times", int((~sound).sum()))
        pieces.append(np.stack([start[sound], end[sound]], axis=1))
    whole = np.concatenate(pieces)
    return np.asarray(whole[np.lexsort((whole[:, 1], whole[:, 0]))])


def diagnostics(tables: Tables) -> list[str]:
    """What nsys says went wrong: its errors, and warnings of lost records."""
    found: dict[str, int] = {}
    for chunk in rows(tables, DIAGNOSTICS):
        for severity, text in zip(
            chunk.numbers["severity"].tolist(), chunk.texts["text"], strict=True
        ):
            if text and (severity == ERROR or severity == 2 and _LOST.search(text)):
                said = without_paths(text)
                found[said] = found.get(said, 0) + 1
    notes = [
        f"{TOOL} said: {text}" + (f" ({count:,} times)" if count > 1 else "")
        for text, count in list(found.items())[:MOST_DIAGNOSTICS]
    ]
    if len(found) > MOST_DIAGNOSTICS:
        notes.append(f"{TOOL} said {len(found) - MOST_DIAGNOSTICS:,} other things that went wrong")
    return notes


def without_paths(text: str) -> str:
    """``text`` on one line without words that look like a path, an address or a variable."""
    return _PRIVATE.sub("[...]", " ".join(printable(text, 500).split()))


def whole_graphs(tables: Tables) -> list[str]:
    """A note if launches of CUDA graphs were recorded as one interval each."""
    count = sum(len(chunk.numbers["start"]) for chunk in rows(tables, GRAPH))
    if not count:
        return []
    return [
        f"{count:,} launches of CUDA graphs are one interval each and their kernels are not in the"
        " capture; record with nsys profile --cuda-graph-trace=node"
    ]
