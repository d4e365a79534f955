"""What a capture becomes: an ordinary record, by the importer that reads anybody's captures.

In graph mode a replay calls no stage, so no range tells its operations apart. The importer can take
the stages of nodes from a record that knows them by number; here it gets one whose graph is made of
the capture's own nodes, each given to the stage during whose capture it was made.
"""

from __future__ import annotations

from dataclasses import replace

from moeprof.assemble import with_node_stages
from moeprof.capturing.capture import Captured, Files
from moeprof.capturing.job import GraphNodes
from moeprof.importing.open import read_trace
from moeprof.importing.record import ImportOptions, record_of
from moeprof.importing.trace import Trace
from moeprof.records import Run
from moeprof.storage.store import write
from moeprof.timelines import Iteration, TimelinePass

REPLAYED = "each forward is the replay of one CUDA graph: a single call launches all of it"


def as_record(captured: Captured, files: Files) -> Run:
    """The skeleton with the times that the export in ``files`` holds.

    The skeleton is left beside the export, for ``moeprof import EXPORT --like SKELETON``; in graph
    mode with the replayed graph as imported, by which that knows the stages of nodes again.
    """
    assert files.export is not None
    trace, skeleton = read_trace(files.export), captured.skeleton
    like = skeleton if captured.nodes is None else knowing_nodes(skeleton, trace, captured.nodes)
    imported = record_of(trace, ImportOptions(file=files.export.name), like)
    if captured.nodes is not None:
        graph = tuple(replace(timeline, name="graph") for timeline in imported.timelines)
        skeleton = replace(skeleton, timelines=graph)
        capture = imported.capture
        noted = capture and replace(capture, notes=(REPLAYED, *capture.notes))
        imported = replace(imported, capture=noted)
    write(skeleton, files.skeleton, replace=True)
    # what only the captured process knew
    return replace(
        imported,
        clocks=skeleton.clocks,
        ceilings=skeleton.ceilings,
        warnings=(*skeleton.warnings, *imported.warnings),
    )


def knowing_nodes(skeleton: Run, trace: Trace, nodes: GraphNodes) -> Run:
    """The skeleton with a graph of the nodes in ``trace``, whose stages follow from their numbers;
    its times mean nothing."""
    operations = tuple(
        operation for operation in trace.operations.descriptions if operation.graph_node is not None
    )
    times = Iteration(0, (0,) * len(operations), (1,) * len(operations))
    graph = TimelinePass("graph", (operations,), (times,))
    named = with_node_stages(graph, nodes.stages, nodes.nodes_after)
    return replace(skeleton, timelines=(named,))
