"""Forward, passes and refusals, on toy stages that run here."""

from __future__ import annotations

import pytest
import torch

from moeprof.contract import STEPS, Library, Solution, Stage, Step, check_wiring, stage
from moeprof.errors import ContractError, EnvironmentMissing, WrongResult
from moeprof.measure.execute import refuse_missing_cupti, refuse_stand_ins
from moeprof.measure.forward import Forward
from moeprof.measure.workbench import poisoned_memory
from moeprof.records import PASSES
from moeprof.solutions.catalog import LoadedSolution
from moeprof.timing import bare, stages
from moeprof.timing.device import CpuDevice


def toy(*made: Stage) -> Solution:
    return Solution("toy", made)


@stage(Step.ROUTING, writes=("doubled", "tripled"))
def first(x: torch.Tensor, *, factor: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return factor * x, 3 * x


@stage(*STEPS[1:], writes="output")
def second(doubled: torch.Tensor, tripled: torch.Tensor, output: torch.Tensor) -> None:
    output.copy_(doubled + tripled)


def forward(solution: Solution | None = None) -> Forward:
    given = {"x": torch.ones(4), "output": torch.zeros(4)}
    return Forward(solution or toy(first, second), given)


def test_stages_run_in_order_on_named_tensors() -> None:
    call = forward()
    slots = call()
    assert call.output(slots).tolist() == [5.0] * 4
    assert call.named(slots)["tripled"].tolist() == [3.0] * 4


def test_an_option_of_a_stage_is_set_by_the_solution_and_told() -> None:
    changed = first.with_options(factor=10)
    call = forward(toy(changed, second))
    assert call.output(call()).tolist() == [13.0] * 4
    assert changed.options == {"factor": 10} and first.options == {}
    with pytest.raises(ContractError, match="no option 'factr'; did you mean factor"):
        first.with_options(factr=1)


def test_hooks_bracket_each_stage() -> None:
    seen: list[str] = []
    forward()(enter=lambda p: seen.append(f"enter {p}"), leave=lambda p: seen.append(f"leave {p}"))
    assert seen == ["enter 0", "leave 0", "enter 1", "leave 1"]


def test_bare_samples_are_plain_and_stamped_in_turn() -> None:
    samples = bare.measure(forward(), CpuDevice(), 5, trial=2)
    assert [bool(s.stamps_us) for s in samples] == [False, True, False, True, False]
    for sample in samples:
        assert sample.trial == 2 and len(sample.stamps_us) in (0, 2)
        assert list(sample.stamps_us) == sorted(sample.stamps_us)


def test_stage_clocks_add_up_to_no_more_than_the_wall() -> None:
    for sample in stages.measure_wall(forward(), CpuDevice(), 3):
        assert len(sample.stage_us) == 2 and sum(sample.stage_us) <= sample.wall_us


def test_an_exception_names_its_stage() -> None:
    @stage(*STEPS[1:], writes="output")
    def fails(doubled: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such tile\nat all")

    with pytest.raises(WrongResult, match=r"stage .* of toy raised ValueError: no such tile$"):
        forward(toy(first, fails)).guarded()


def test_an_unwired_tensor_is_named_with_the_nearest() -> None:
    @stage(*STEPS[1:], writes="output")
    def misses(trippled: torch.Tensor) -> torch.Tensor:
        return trippled

    with pytest.raises(ContractError, match="reads 'trippled'.*did you mean tripled"):
        forward(toy(first, misses))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ((first,), "covers no prepare_moe_input"),
        ((first, first.named("again"), second), "covers routing, which an earlier stage"),
        ((first, first, second), "has the name of an earlier stage"),
    ],
)
def test_all_seven_steps_are_covered_once(made: tuple[Stage, ...], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        check_wiring(toy(*made), ("x", "output"))


def test_memory_that_torch_leaves_as_it_is_holds_nan_under_the_check() -> None:
    with poisoned_memory():
        assert torch.empty(16).isnan().all()
        assert (torch.empty(4, dtype=torch.int32) == torch.iinfo(torch.int32).max).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_twin_is_never_timed_on_a_gpu() -> None:
    library = Library("sgl_kernel", None, "no module of that name")

    @stage(*STEPS, writes="output", library=library)
    def twin(x: torch.Tensor) -> torch.Tensor:
        return x

    loaded = LoadedSolution(toy(twin), "", "stages")
    refuse_stand_ins(loaded, "cpu")
    with pytest.raises(EnvironmentMissing, match="sgl_kernel: no module of that name"):
        refuse_stand_ins(loaded, "cuda")


def test_cupti_is_missed_before_anything_is_measured() -> None:
    refuse_missing_cupti(PASSES, "cpu", installed=False)
    refuse_missing_cupti(PASSES, "cuda", installed=True)
    refuse_missing_cupti(("first", "bare", "graph"), "cuda", installed=False)
    with pytest.raises(EnvironmentMissing, match="kernels, api need CUPTI.*--passes first,bare"):
        refuse_missing_cupti(PASSES, "cuda", installed=False)
