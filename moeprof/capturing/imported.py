"""What a capture becomes: an ordinary record, by the importer that reads anybody's captures."""

from __future__ import annotations

from dataclasses import replace

from moeprof.assemble import with_node_stages
from moeprof.capturing.capture import Captured, Files
from moeprof.capturing.job import GraphNodes
from moeprof.importing.open import read_trace
from moeprof.importing.record import record_of
from moeprof.records import Run

BY_NODES = "graph nodes"


def as_record(captured: Captured, files: Files) -> Run:
    """The skeleton with the times that the export in ``files`` holds."""
    assert files.export is not None
    run = record_of(read_trace(files.export), like=captured.skeleton)
    return run if captured.nodes is None else by_nodes(run, captured.nodes)


def by_nodes(run: Run, nodes: GraphNodes) -> Run:
    """``run``, a capture of a replayed graph, with each operation given to the stage that made its
    node when the graph was captured: a replay calls no stage, so no range tells them apart."""
    timelines = tuple(
        with_node_stages(timeline, nodes.stages, nodes.nodes_after) for timeline in run.timelines
    )
    capture = run.capture and replace(run.capture, stages_by=BY_NODES)
    return replace(run, timelines=timelines, capture=capture)
