"""Commands for what is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretrain.cli.options import AsJson, Commands, Overrides, Quiet, RecipePath, show

commands = typer.Typer(cls=Commands)
data_app = typer.Typer(cls=Commands, help="Look at what a recipe would train on.", no_args_is_help=True)
commands.add_typer(data_app, name="data")
corpus_app = typer.Typer(cls=Commands, help="Make a corpus of raw text.", no_args_is_help=True)
commands.add_typer(corpus_app, name="corpus")


@data_app.command("show")
def show_data(
    recipe: RecipePath,
    overrides: Overrides = None,
    batches: Annotated[int, typer.Option(min=1, help="How many batches.")] = 1,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of each.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Print the first batches as text, with domain, source and loss mask."""
    from foretrain import api, views

    found = api.show_data(recipe, overrides=overrides or [], batches=batches, rows=rows)
    show(found, as_json, views.batches)


@corpus_app.command("build")
def build_corpus(
    file: Annotated[Path, typer.Argument(metavar="BUILD", help="What it is built from and how (.yaml).")],
    out: Annotated[Path | None, typer.Option(help="Its folder; corpora/NAME if left out.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the build, such as shards=8 (repeatable)."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier build in that folder.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Filter, deduplicate, score and write documents. The same command goes on with a build that was stopped."""
    from foretrain import api, views

    found = api.build_corpus(file, out=out, overrides=overrides or [], restart=restart, quiet=quiet or as_json)
    show(found, as_json, views.corpus)
