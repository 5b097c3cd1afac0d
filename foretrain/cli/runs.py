"""Commands that train, and that look at runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from foretrain.cli.options import AsJson, Commands, Overrides, Quiet, RecipePath, RunPath, show, the_terminal

commands = typer.Typer(cls=Commands)


@commands.command()
def run(
    recipe: RecipePath,
    out: Annotated[Path | None, typer.Option(help="The run directory; runs/NAME if left out.")] = None,
    overrides: Overrides = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Budget in minutes, in place of the recipe's.")] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="RUN[@STEP]", help="Begin with the weights of another run.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier run in that directory.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run, in place of the recipe's.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train. The same command goes on with a run that was stopped, killed or crashed."""
    started = time.time()  # the imports below take seconds, and a budget in minutes counts them
    from foretrain import api, views

    done = api.run(
        recipe,
        out=out,
        overrides=overrides or [],
        start_from=start_from,
        restart=restart,
        minutes=minutes,
        name=name,
        quiet=quiet or as_json,
        started=started,
    )
    show({"path": str(done.path), "result": done.result()}, as_json, views.result)


@commands.command()
def check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Resolve a recipe, count parameters and FLOPs, estimate memory and time; train nothing."""
    from foretrain import api, views

    plan = api.check(recipe, overrides=overrides or [])
    show(plan.plain(), as_json, views.plan)


@commands.command()
def schema() -> None:
    """Print the JSON Schema of a recipe."""
    from foretrain import reference

    the_terminal().json(reference.schema())


@commands.command()
def parts(
    name: Annotated[str | None, typer.Argument(metavar="[KIND]", help="An axis (schedule) or a kind (cosine).")] = None,
    as_json: AsJson = False,
) -> None:
    """List what a recipe may name: every part, with its fields, defaults and paper."""
    from foretrain import reference, views

    show(reference.find_parts(name), as_json, views.parts)


@commands.command("ls")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from foretrain import views
    from foretrain.run_directory import list_runs

    show(list_runs(folder), as_json, views.runs)


@commands.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories.")],
    as_json: AsJson = False,
) -> None:
    """Put runs side by side: final figures, costs, and where their recipes differ."""
    from foretrain import api, views

    show(api.compare(runs), as_json, views.comparison)


@commands.command()
def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write a run's report.html again."""
    from foretrain import api, views

    show({"path": str(api.report(run))}, as_json, views.path)


@commands.command()
def forecast(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Runs to learn from; the last one's end is predicted.")
    ] = None,
    law: Annotated[
        str | None, typer.Option(help="A forecaster, such as lr_annealing or '{kind: lr_annealing, memory: 0.99}'.")
    ] = None,
    figure: Annotated[str, typer.Option(help="What is predicted, such as validation/loss.")] = "loss",
    schedule: Annotated[
        str | None, typer.Option(help="What another schedule would come to, such as '{kind: wsd, decay: 0.1}'.")
    ] = None,
    to: Annotated[int | None, typer.Option(min=1, help="What another number of steps would come to.")] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="List the forecasts of runs in a folder, and how they came out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict the end of a run, also of one that still goes on, from its curve and those of others."""
    from foretrain import api, views

    if ledger:
        show(api.ledger((runs or [Path("runs")])[0]), as_json, views.ledger)
    else:
        found = api.forecast(runs or [], law=law, figure=figure, schedule=schedule, to=to)
        show(found, as_json, views.forecast)
