"""``moeprof calibrate``: what measuring costs on this machine, and its ceilings."""

from __future__ import annotations

import dataclasses

import click

from moeprof.cli.options import json_option
from moeprof.cli.output import show, show_json
from moeprof.errors import EnvironmentMissing


@click.command("calibrate")
@json_option
def command(as_json: bool) -> None:
    """Measure the ceilings and the cost of measuring; every run stamps its own into its record.

    Needs a GPU and CUPTI; takes a few seconds. Exit code 2 where either is missing.
    """
    import torch

    from moeprof.machine.environment import describe

    if not torch.cuda.is_available():
        raise EnvironmentMissing(
            "there is no CUDA device to calibrate", do="moeprof doctor shows what this machine has"
        )
    from moeprof.timing import ceilings
    from moeprof.timing.calibration import calibrate_device, calibrate_host
    from moeprof.timing.cupti import session
    from moeprof.timing.device import CudaDevice

    device = CudaDevice("warm")
    best = ceilings.measure(device)
    costs = calibrate_host(device)
    costs = calibrate_device(session(), device, costs)
    environment = describe("cuda")
    if as_json:
        show_json(
            "moeprof.calibrate/1",
            {
                "environment": dataclasses.asdict(environment),
                "calibration": dataclasses.asdict(costs),
                "ceilings": dataclasses.asdict(best) if best else None,
            },
        )
        return

    from rich.table import Table

    table = Table("what", "measured", box=None, pad_edge=False, title=environment.device)
    for name, value in (
        ("an empty pair of CUDA events", f"{costs.null_event_pair_us:.1f} us"),
        ("recording one event, host", f"{costs.event_record_us:.1f} us"),
        ("launching one kernel through torch, host", f"{costs.launch_us:.1f} us"),
        ("launch call's return to start, idle GPU", _ns(costs.launch_latency_ns)),
        ("between queued kernels", _ns(costs.queued_gap_ns)),
        ("between nodes of a graph", _ns(costs.graph_gap_ns)),
        ("25 tiny launches: bare", _us(costs.tiny_bare_us)),
        ("25 tiny launches: under device records", _us(costs.tiny_kernels_us)),
        ("25 tiny launches: under device and API records", _us(costs.tiny_api_us)),
    ):
        table.add_row(name, value)
    if best is None:
        table.add_row("ceilings", "not measured: needs FP8 products and 8 GB of free memory")
    else:
        table.add_row("copy, read and written", f"{best.copy_bytes_per_second / 1e12:.2f} TB/s")
        table.add_row("read", f"{best.read_bytes_per_second / 1e12:.2f} TB/s")
        table.add_row("FP8, fast accumulation", f"{best.fp8_flops_per_second / 1e12:,.0f} TFLOP/s")
        table.add_row(
            "FP8, slow accumulation", f"{best.fp8_slow_flops_per_second / 1e12:,.0f} TFLOP/s"
        )
    show(table)


def _ns(value: int | None) -> str:
    return "not measured" if value is None else f"{value:,} ns"


def _us(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f} us"
