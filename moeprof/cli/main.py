"""``moeprof``: the list of commands, and what every one of them does with an error.

Exit codes: 0 ok, 1 a wrong result or a regression, 2 usage or an environment that cannot do it, 3 a
check that is inconclusive, 4 a bench with cells that could not be measured, 130 interrupted.
Errors of the user's are one line on stderr; a traceback is a bug in moeprof.
"""

from __future__ import annotations

import errno
import importlib
import keyword
import sys
from collections.abc import Sequence

import click

from moeprof import __version__
from moeprof.cli.output import discard_stdout
from moeprof.errors import (
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    MoeprofError,
    UsageError,
    is_out_of_memory,
    nearest,
)

# in the order a user meets them: name, the line shown by --help; the module is cli/<name>.py
COMMANDS: tuple[tuple[str, str], ...] = (
    ("run", "Run a solution on workloads: check it, measure every stage, keep a record."),
    ("bench", "Measure solutions in turn on the same inputs, and show how they compare."),
    ("list", "List solutions, stages, workloads or runs."),
    ("compare", "Explain why one solution takes longer than another, from their records."),
    ("explain", "Change one thing at a time on the device, beside what the profile predicts."),
    ("baseline", "Record, list, show, accept or prune what later runs are checked against."),
    ("check", "Judge whether a solution became slower: which stage, how much, how surely, why."),
    ("noise", "Say what a check can see: from records, or from simulated noise."),
    ("history", "Show a solution's times over all checks, and where they stepped."),
    ("bisect", "Find the first commit in which a stage became slower."),
    ("timeline", "Capture a solution with nsys, ncu or torch; write a record for a trace viewer."),
    ("import", "Read a capture of nsys, PyTorch's profiler or Chrome's format as a record."),
    ("export", "Write solutions, and records as traces, in FlashInfer-Bench's form."),
    ("verify", "Compare records with another profiler's capture of the same work, by stage."),
    ("report", "Write many records as one page, as Markdown or as JSON."),
    ("calibrate", "Measure this machine's ceilings and what measuring costs on it."),
    ("doctor", "Say what this machine can measure and how to get the rest."),
)


class LazyCommands(click.Group):
    """Imports a command's module when it is used, so that --help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _ in COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        known = self.list_commands(ctx)
        if name not in known:
            raise UsageError(f"there is no command {name!r}", do=nearest(name, known))
        module = importlib.import_module(f"moeprof.cli.{name}{'_' * keyword.iskeyword(name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS))


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moeprof")
def moeprof() -> None:
    """Where the time of an FP8 block-scale MoE forward goes, stage by stage, and proof of it.

    Exit codes: 0 ok, 1 wrong result or regression, 2 usage or environment, 3 inconclusive check,
    4 bench with cells missing, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command and end the process with its exit code."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command line; what a user can cause is said in one line on stderr."""
    try:
        outcome = moeprof.main(arguments, prog_name="moeprof", standalone_mode=False)
        sys.stdout.flush()  # while a full disk or a closed pipe can still be reported
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()))
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; finished records were kept", EXIT_INTERRUPTED)
    except MoeprofError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of stdout (head, less) has left: no error of ours
        discard_stdout()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        discard_stdout()
        return _fail(f"the disk is full ({error.filename or 'stdout'}); free some space")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _fail(f"out of GPU memory: {str(error).splitlines()[0]}; use a smaller workload")


def _fail(message: str, exit_code: int = EXIT_USAGE) -> int:
    click.secho(f"moeprof: error: {message}", fg="red", err=True)
    return exit_code
