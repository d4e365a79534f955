"""Comparing traces, whose columns are arrays."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from moeprof.importing.trace import Trace


def differences(one: Trace, other: Trace) -> list[str]:
    """Names of the fields in which two traces differ."""
    found = []
    for field in fields(Trace):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("operations", "calls", "ranges"):
            found += [
                f"{field.name}.{column.name}"
                for column in fields(mine)
                if not _same(getattr(mine, column.name), getattr(theirs, column.name))
            ]
        elif not _same(mine, theirs):
            found.append(field.name)
    return found


def check_sound(trace: Trace) -> None:
    """Assert what every trace promises, however odd the file it was read from."""
    operations, calls, ranges = trace.operations, trace.calls, trace.ranges
    for table, ends in ((operations, operations.end_ns), (calls, calls.end_ns)):
        assert (ends >= table.start_ns).all()
    closed = ranges.end_ns != -1
    assert (ranges.end_ns[closed] >= ranges.start_ns[closed]).all()
    for table in (operations, calls, ranges):
        assert (np.diff(table.start_ns) >= 0).all()
        assert table.start_ns.dtype == table.end_ns.dtype == np.int64
    for index, names in (
        (operations.description, operations.descriptions),
        (operations.place, operations.places),
        (calls.name, calls.names),
        (ranges.name, ranges.names),
    ):
        assert index.dtype == np.int32
        assert ((index >= 0) & (index < max(len(names), 1))).all()
        assert len(set(names)) == len(names)
    known = set(trace.threads)
    assert set(calls.thread.tolist()) <= known
    assert set(ranges.thread.tolist()) - {-1} <= known
    assert trace.overhead_ns.shape[1:] == (2,)
    launched = calls.correlation[calls.correlation >= 0].tolist()
    processes = [trace.threads[thread][0] for thread in calls.thread.tolist()]
    keys = [key for key in zip(processes, calls.correlation.tolist(), strict=True) if key[1] >= 0]
    assert len(set(keys)) == len(launched)
    texts = [
        *(operation.name for operation in operations.descriptions),
        *calls.names,
        *(text for name in ranges.names for text in name),
        *trace.notes,
        *(gpu.name for gpu in trace.gpus),
        *(trace.driver, trace.cuda, trace.source.tool_version, trace.source.schema),
    ]
    assert all(text.isprintable() for text in texts)
    assert all(operation.name for operation in operations.descriptions)


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other
