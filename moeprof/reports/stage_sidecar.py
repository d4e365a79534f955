"""The stage data of one record, to lie beside its trace in a FlashInfer-Bench dataset.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times keep their unit in the name, what is unknown is null. See
``docs/flashinfer-bench.md``.
"""

from __future__ import annotations

from typing import Any

from moeprof.fib.evaluations import record_id, solution_name
from moeprof.fib.schema import FibSolution
from moeprof.records import Run
from moeprof.reports.json import run_document

DOCUMENT = "moeprof.stages/1"
# what is told of a run there, beside what it is of
TOLD = (
    *("environment", "settings", "routing", "correctness", "parity", "profile", "stages"),
    *("graph_stages", "gemms", "ceilings", "passes", "clocks", "warnings"),
)


def stage_document(run: Run, solution: FibSolution, trace: str) -> dict[str, Any]:
    """solution: the dataset's, which ran. trace: the path of the file that holds its trace."""
    document = run_document(run)
    return {
        "schema": DOCUMENT,
        "definition": run.workload.definition,
        "solution": {
            "name": solution_name(run),
            "author": solution.author,
            "hash": solution.hash,
            "source_hash": run.solution.source_hash,
        },
        "workload": document["workload"],
        "record": record_id(run),
        "created": run.created,
        "moeprof": run.moeprof,
        "trace": trace,
        **{name: document[name] for name in TOLD},
    }
