"""The command line: each command is one call of the Python API, and the words around it.

Nothing heavy is imported before a command needs it, so `foretrain --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from foretrain.cli import corpora, models, runs, studies
from foretrain.cli.options import Commands, rank, the_terminal
from foretrain.errors import ForetrainError, Interrupted

REFUSED_BY_THE_SYSTEM = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}
"""Errors of the operating system that are about the user's machine and not about foretrain."""

app = typer.Typer(
    cls=Commands,
    name="foretrain",
    help="Pre-train and continue to pre-train language models from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 3 interrupted and resumable.",
)
for group in (runs, models, studies, corpora):
    app.add_typer(group.commands)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from foretrain import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """The `foretrain` command: one paragraph for an error of the request or the run, a traceback for one of ours."""
    # Before torch is loaded: threads that spin while they wait cost a run several times its speed where it shares its
    # cores with others (measured 4x), and win next to nothing where it does not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _command()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # Everything is written and the group has ended. A thread of gloo may still let go of a tensor while the
            # interpreter is taken down, which now and then aborts a process that had done its work.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _command() -> NoReturn:
    try:
        app(prog_name="foretrain")
        sys.exit(0)
    except Interrupted as error:
        the_terminal().say(str(error))
        sys.exit(error.exit_code)
    except ForetrainError as error:
        _leave(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_SYSTEM:
            _own_fault()
        _leave(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror), 1)
    except Exception:
        _own_fault()


def _leave(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    if rank() == 0:
        the_terminal().fail(text)
    else:
        print(f"rank {rank()}: {text}", file=sys.stderr)
    sys.exit(code)


def _own_fault() -> NoReturn:
    traceback.print_exc()
    _leave("This is a fault of foretrain, not of your request: please report it with the lines above.", 1)
