"""The process that ``moeprof bench`` starts: ``python -m moeprof.cli.bench_child FD PARENT``.

Its request and its job come over stdin, its messages go to descriptor FD; stdout and stderr are the
solutions'. It is no command of its own.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from moeprof.benching.messages import Broken, Event, Fatal, Job, Request, from_line, to_line
from moeprof.benching.process import die_with_parent
from moeprof.errors import MoeprofError


def main(descriptor: int, parent: int) -> None:
    """Measure, then end at once: what solutions left behind has no say in how this ends."""
    die_with_parent(parent)
    code = 0
    try:
        _work(descriptor)
    except MoeprofError as error:
        _send(descriptor, Fatal(str(error), error.exit_code))
    except RuntimeError as error:
        if "CUDA" in str(error):  # a fault of some solution's, noticed late
            traceback.print_exc()
        else:
            _send(descriptor, Broken(traceback.format_exc()))
        code = 1
    except Exception:
        _send(descriptor, Broken(traceback.format_exc()))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(descriptor: int) -> None:
    request: Request = from_line(_line())
    problems = _problems(request)
    from moeprof.benching.worker import work

    def job() -> Job:
        given: Job = from_line(_line())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a solution that asks would wait for ever
        return given

    trusted = request.options["trust"]
    work(problems, request.solutions, trusted, lambda event: _send(descriptor, event), job)


def _problems(request: Request) -> Any:
    from moeprof.cli.planning import RunOptions, make_choices

    chosen = make_choices(RunOptions(**request.options))
    from moeprof.measure.plan import Problems

    return Problems(
        definition=chosen.definition,
        workloads=chosen.workloads,
        dataset=chosen.dataset,
        settings=chosen.settings,
        routing=request.options["routing"],
        weights=request.options["weights"],
        device=chosen.device,
        allow_no_local_work=request.options["allow_no_local_work"],
    )


def _line() -> bytes:
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(1)  # the watcher has gone
    return line


def _send(descriptor: int, event: Event) -> None:
    line = to_line(event)
    while line:
        line = line[os.write(descriptor, line) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
