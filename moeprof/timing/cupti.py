"""Kernel, copy, memset and API records through CUPTI: the per-stage truth.

Two passes. ``kernels`` asks for device activity alone and gives durations and order. ``api`` adds
runtime and driver calls and tags every call made inside a stage with an external correlation id,
so that each operation belongs to the stage whose launch call made it, without joining intervals.

Records are delivered by buffers that are read after the last iteration; iterations are told apart
by host timestamps taken on CUPTI's own clock. One session a process: on CUDA 13.0 later sessions
give wrong correlation ids.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from moeprof.assemble import Call, Records, Window, assemble
from moeprof.errors import EnvironmentMissing
from moeprof.measure.forward import StagedCall
from moeprof.timelines import Operation, OperationKind, TimelinePass
from moeprof.timing.device import CudaDevice, no_collection, now_ns
from moeprof.timing.ranges import Ranges

BUFFER_BYTES = 8 << 20


# calls recorded in the api pass: all that launch, copy, wait or allocate. Recording every call
# (device and stream queries, error checks) costs the host without telling anything.
RECORDED_CALLS = re.compile(
    r"Launch|Memcpy|Memset|Synchronize|Malloc|Alloc|Free|EventRecord|StreamWait|ModuleLoad|Library"
)


@functools.cache
def session() -> Cupti:
    """The one session of this process. Ask for it after every unprofiled pass."""
    return Cupti()


def attached() -> bool:
    """Whether this process has a session, which leaves the host slower from then on."""
    return session.cache_info().currsize > 0


class Cupti:
    """CUPTI's activity interface; see ``session``."""

    def __init__(self) -> None:
        try:
            from cupti import cupti
        except ImportError as error:
            raise EnvironmentMissing(
                f"CUPTI's Python interface does not load ({error})",
                do="pip install 'cupti-python==13.0.*' (the minor version must match torch's CUDA)",
            ) from error
        import torch

        self._cupti = cupti
        self._demangle: Callable[[str], str] = torch._C._demangle
        self._records = Records()
        self._calls_chosen = False
        self.now_ns: Callable[[], int] = cupti.get_timestamp
        self._names: dict[tuple[bool, int], str] = {}
        self._operations: dict[tuple[Any, ...], Operation] = {}
        kinds = cupti.ActivityKind
        self._runtime, self._driver = int(kinds.RUNTIME), int(kinds.DRIVER)
        self._external = int(kinds.EXTERNAL_CORRELATION)
        self._call_kinds = (kinds.RUNTIME, kinds.DRIVER)
        self._tag_kinds = (kinds.EXTERNAL_CORRELATION,)
        self._describe: dict[int, Callable[[Any], Operation]] = {
            int(kinds.CONCURRENT_KERNEL): self._kernel,
            int(kinds.MEMCPY): self._copy,
            int(kinds.MEMSET): self._set,
        }
        self._device_kinds = (kinds.CONCURRENT_KERNEL, kinds.MEMCPY, kinds.MEMSET)
        cupti.activity_register_callbacks(lambda: (BUFFER_BYTES, 0), self._read)

    # -- reading buffers ------------------------------------------------------------------

    def _read(self, activities: list[Any]) -> None:
        # kinds compared as integers and descriptors shared: a forward may make 10,000 records
        records, add = self._records, self._records.operations.append
        for activity in activities:
            kind = int(activity.kind)
            if kind in (self._runtime, self._driver):
                name = self._api_name(kind == self._runtime, activity.cbid)
                call = Call(name, activity.start, activity.end)
                records.calls.setdefault(activity.correlation_id, call)
            elif kind == self._external:
                records.stages[activity.correlation_id] = activity.external_id
            elif kind in self._describe:
                operation = self._describe[kind](activity)
                add((activity.start, activity.end, activity.correlation_id, operation))

    def _kernel(self, activity: Any) -> Operation:
        key = (
            activity.name,
            activity.stream_id,
            (activity.grid_x, activity.grid_y, activity.grid_z),
            (activity.block_x, activity.block_y, activity.block_z),
            activity.registers_per_thread,
            activity.static_shared_memory + activity.dynamic_shared_memory,
            activity.graph_node_id,
        )
        operation = self._operations.get(key)
        if operation is None:
            name, stream, grid, block, registers, shared_bytes, node = key
            operation = self._operations[key] = Operation(
                name=self._demangle(name),
                kind="kernel",
                stage="",
                stream=stream,
                grid=grid,
                block=block,
                registers=registers,
                shared_bytes=shared_bytes,
                graph_node=node or None,
            )
        return operation

    def _copy(self, activity: Any) -> Operation:
        name = f"memcpy {self._cupti.ActivityMemcpyKind(activity.copy_kind).name}"
        return self._transfer(activity, name, "memcpy")

    def _set(self, activity: Any) -> Operation:
        return self._transfer(activity, "memset", "memset")

    def _transfer(self, activity: Any, name: str, kind: OperationKind) -> Operation:
        return Operation(
            name=name,
            kind=kind,
            stage="",
            stream=activity.stream_id,
            bytes=activity.bytes,
            graph_node=activity.graph_node_id or None,
        )

    def _api_name(self, runtime: bool, cbid: int) -> str:
        name = self._names.get((runtime, cbid))
        if name is None:
            domains = self._cupti.CallbackDomain
            domain = domains.RUNTIME_API if runtime else domains.DRIVER_API
            name = str(self._cupti.get_callback_name(domain, cbid)).split("_v")[0]
            self._names[runtime, cbid] = name
        return name

    # -- the passes -----------------------------------------------------------------------

    def kernels(self, forward: StagedCall, device: CudaDevice, iterations: int) -> TimelinePass:
        """Device activity of ``iterations`` forwards, nothing else recorded."""
        return self._pass(
            "kernels",
            forward.stage_names,
            iterations,
            lambda: self._plain(lambda: forward(), device),
        )

    def graph(
        self, replay: Callable[[], None], device: CudaDevice, iterations: int
    ) -> TimelinePass:
        """Device activity of ``iterations`` replays of a captured graph."""
        return self._pass("graph", (), iterations, lambda: self._plain(replay, device))

    def api(
        self, forward: StagedCall, device: CudaDevice, iterations: int, ranges: Ranges
    ) -> TimelinePass:
        """Device activity, API calls and stage tags of ``iterations`` forwards."""
        return self._pass(
            "api", forward.stage_names, iterations, lambda: self._tagged(forward, device, ranges)
        )

    def collect(self, name: str, iterate: Callable[[], list[Window]]) -> TimelinePass:
        """What ``iterate`` records (under ``recording``) in the windows it returns; no stages."""
        self._records = Records()
        windows = iterate()
        return assemble(name, (), windows, self._records, self._dropped())

    @property
    def records_every_call(self) -> bool:
        """Whether every call can still be recorded: not after a pass that left some out."""
        return not self._calls_chosen

    @contextmanager
    def recording(self, api: bool, tags: bool = True, every_call: bool = False) -> Iterator[None]:
        """Record device activity and, with ``api``, the calls of RECORDED_CALLS and stage tags.

        tags False: no stage tags. every_call: all calls, as long as none has been left out.
        """
        cupti = self._cupti
        call_kinds = self._call_kinds if api else ()
        tag_kinds = self._tag_kinds if api and tags else ()
        with ExitStack() as stack:
            for kind in (*self._device_kinds, *call_kinds, *tag_kinds):
                cupti.activity_enable(kind)
                stack.callback(cupti.activity_disable, kind)
            if api and not every_call and not self._calls_chosen:
                # works only once their kind is on, and lasts; switching a call on again by itself
                # would record it twice over (540 us instead of 270 for 25 launches)
                self._calls_chosen = True
                for leave_out, call in self._unwanted_calls():
                    leave_out(call, 0)
            yield
            cupti.activity_flush_all(0)

    def _unwanted_calls(self) -> list[tuple[Callable[[int, int], None], int]]:
        cupti = self._cupti
        ways = (
            (cupti.activity_enable_runtime_api, cupti.runtime_api_trace_cbid),
            (cupti.activity_enable_driver_api, cupti.driver_api_trace_cbid),
        )
        return [
            (enable, int(call))
            for enable, calls in ways
            for call in calls
            if call.name not in ("INVALID", "SIZE", "FORCE_INT")
            and not RECORDED_CALLS.search(call.name)
        ]

    def _pass(
        self, name: str, stages: tuple[str, ...], iterations: int, iterate: Callable[[], Window]
    ) -> TimelinePass:
        self._records = Records()
        with self.recording(api=name == "api"):
            iterate()  # switching records on makes the first iteration slow
            with no_collection():
                windows = [iterate() for _ in range(iterations)]
        return assemble(name, stages, windows, self._records, self._dropped())

    def _plain(self, call: Callable[[], Any], device: CudaDevice) -> Window:
        device.prepare()
        entry = self._cupti.get_timestamp()
        slots = call()
        device.synchronize()
        window = Window(entry, self._cupti.get_timestamp(), (), ())
        del slots
        return window

    def _tagged(self, forward: StagedCall, device: CudaDevice, ranges: Ranges) -> Window:
        cupti = self._cupti
        push = cupti.activity_push_external_correlation_id
        pop = cupti.activity_pop_external_correlation_id
        kind = cupti.ExternalCorrelationKind.CUSTOM0
        begins: list[int] = []
        ends: list[int] = []

        # the stamps lie inside the tagging, whose cost the bare pass does not have
        def enter(position: int) -> None:
            ranges.enter(position)
            push(kind, position + 1)
            begins.append(now_ns())

        def leave(position: int) -> None:
            ends.append(now_ns())
            pop(kind)
            ranges.leave(position)

        device.prepare()
        before = now_ns()
        entry = cupti.get_timestamp()
        after = now_ns()
        with ranges.iteration():
            slots = forward(enter, leave)
            device.synchronize()
        exit_ns = cupti.get_timestamp()
        del slots
        shift = entry - (before + after) // 2  # from the host's clock to CUPTI's
        return Window(
            entry,
            exit_ns,
            tuple(begin + shift for begin in begins),
            tuple(end + shift for end in ends),
        )

    def _dropped(self) -> int:
        count = ctypes.c_size_t(0)
        self._cupti.activity_get_num_dropped_records(0, 0, ctypes.addressof(count))
        return count.value
