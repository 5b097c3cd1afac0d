"""What commands share: arguments of the same name and meaning, and how a result is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from foretrain.errors import Interrupted

if TYPE_CHECKING:
    from foretrain.console import Terminal
    from foretrain.views import View

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe (.yaml), or a text file or folder to train on.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/demo.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as optimizer.lr=1e-3 (repeatable)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Step = Annotated[int | None, typer.Option(min=0, help="Take the checkpoint of this step; the final model if left out.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


class Commands(TyperGroup):
    """A group of commands in which Ctrl-C is an interruption like any other (exit code 3)."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("Interrupted.") from None


def show(value: Any, as_json: bool, view: Callable[[Any], View]) -> None:
    """Print what a command found: as JSON, or as a view of it."""
    terminal = the_terminal()
    if as_json:
        terminal.json(value)
        return
    for piece in view(value):
        terminal.show(piece)


def the_terminal() -> Terminal:
    """Where this process speaks: the screen for the first of several, nowhere for the others."""
    from foretrain.console import Terminal

    return Terminal(main=rank() == 0)


def rank() -> int:
    """Which of the processes that `torchrun` started this is; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))
