"""What is to be measured, and its inputs on the device: weights once, the rest a workload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from moeprof.definition import Definition, Workload
from moeprof.measure.inputs import changed_inputs, fingerprints, make_activations, make_weights
from moeprof.measure.workbench import Problem
from moeprof.problem.dataset import Dataset
from moeprof.problem.routing import Routing, identify, make_routing, parse_spec
from moeprof.records import Settings
from moeprof.solutions.catalog import LoadedSolution


@dataclass(frozen=True)
class Problems:
    """What is measured, and how, whichever solutions it is put to."""

    definition: Definition
    workloads: tuple[Workload, ...]
    dataset: Dataset
    settings: Settings
    routing: str
    weights: str
    device: str  # 'cuda' or 'cpu'
    allow_no_local_work: bool = False


@dataclass(frozen=True)
class Plan(Problems):
    """One solution on them."""

    loaded: LoadedSolution = field(kw_only=True)


class Inputs:
    """Makes the inputs of workloads on the device: weights once, the rest as asked for."""

    def __init__(self, plan: Problems) -> None:
        self._plan = plan
        seed = plan.settings.seed
        self._weights = make_weights(plan.definition, plan.weights, seed, plan.device)
        self._weight_prints = fingerprints(self._weights)

    def problem(self, workload: Workload, routing_spec: str) -> Problem:
        """``workload`` with tokens routed as ``routing_spec`` says; UsageError if it cannot be."""
        plan, seed = self._plan, self._plan.settings.seed
        routing = self._routing(workload, routing_spec)
        activations = self._activations(workload, routing)
        return Problem(
            definition=plan.definition,
            workload=workload,
            routing=identify(routing, plan.definition, workload, plan.weights, seed),
            inputs={**activations, **self._weights},
            untouched={**self._weight_prints, **fingerprints(activations)},
        )

    def restore(self, problem: Problem, routing_spec: str) -> None:
        """Write the inputs of ``problem`` that a solution has changed anew, where they lie."""
        changed = changed_inputs(problem.untouched, problem.inputs)
        plan, workload = self._plan, problem.workload
        fresh: dict[str, Any] = {}
        if not self._weights.keys().isdisjoint(changed):
            seed = plan.settings.seed
            fresh |= make_weights(plan.definition, plan.weights, seed, plan.device)
        if not self._weights.keys() >= set(changed):
            fresh |= self._activations(workload, self._routing(workload, routing_spec))
        for name in changed:
            problem.inputs[name].copy_(fresh[name])

    def _routing(self, workload: Workload, routing_spec: str) -> Routing:
        plan = self._plan
        return make_routing(
            parse_spec(routing_spec),
            plan.definition,
            workload,
            plan.settings.seed,
            dataset=plan.dataset,
            allow_no_local_work=plan.allow_no_local_work,
        )

    def _activations(self, workload: Workload, routing: Routing) -> dict[str, Any]:
        plan = self._plan
        return make_activations(
            plan.definition, workload, routing, plan.weights, plan.settings.seed, plan.device
        )
