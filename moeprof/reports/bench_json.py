"""A bench as a JSON document."""

from __future__ import annotations

from typing import Any

from moeprof.bench.cells import Bench
from moeprof.bench.figures import latency_us

DOCUMENT = "moeprof.bench/1"


def bench_document(bench: Bench) -> dict[str, Any]:
    """The document, ``schema`` first."""
    return {
        "schema": DOCUMENT,
        "solutions": list(bench.solutions),
        "cells": [
            {
                "solution": cell.solution,
                "workload": cell.workload.uuid,
                "num_tokens": cell.workload.seq_len,
                "kind": cell.kind,
                "message": cell.failure.message if cell.failure else None,
                "eager_us": latency_us(cell, "eager"),
                "graph_us": latency_us(cell, "graph"),
            }
            for cell in bench.every_cell
        ],
    }
