"""Commands that compare: studies, published claims, the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foretrain.cli.options import AsJson, Commands, Quiet, show
from foretrain.errors import RequestError

commands = typer.Typer(cls=Commands)
claims_app = typer.Typer(cls=Commands, help="Published claims, and what became of them here.")
commands.add_typer(claims_app, name="claims")


@commands.command()
def study(
    file: Annotated[Path | None, typer.Argument(metavar="STUDY", help="A study (.yaml).")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's directory; studies/NAME if left out.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, in place of the study's own.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, such as base.optimizer.lr=1e-3."),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(metavar="BASE", help="Measure the seed noise of one recipe, or of a study's baseline, instead."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier study in that directory.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare arms over seeds at a matched budget. The same command goes on with a study that was stopped."""
    from foretrain import api, study_views

    if (file is None) == (noise is None):
        raise RequestError("foretrain study takes a study file, or `--noise` and a recipe: one of the two.")
    common: dict[str, Any] = {
        "out": out,
        "seeds": seeds,
        "overrides": overrides or [],
        "restart": restart,
        "quiet": quiet or as_json,
    }
    if noise is not None:
        show(api.noise(noise, **common), as_json, study_views.noise)
    elif file is not None:
        found = api.study(file, **common)
        show(found, as_json, study_views.train_once if "interventions" in found else study_views.study)


@claims_app.callback(invoke_without_command=True)
def list_claims(context: typer.Context, as_json: AsJson = False) -> None:
    """List published claims with their last verdict: reproduced, not reproduced, undecided or not run."""
    from foretrain import api, study_views

    if context.invoked_subcommand is None:
        show(api.list_claims(), as_json, study_views.claims)


@claims_app.command("run")
def run_claim(
    slug: Annotated[str, typer.Argument(metavar="CLAIM", help="The name of its folder, such as one-epoch.")],
    scale: Annotated[str, typer.Option(help="smoke (seconds), small (minutes on two cores) or full.")] = "small",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, in place of the claim's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's directory; studies/claims-CLAIM if left out.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier study in that directory.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run the study of a claim and keep its verdict."""
    from foretrain import api, study_views

    found = api.run_claim(slug, scale=scale, seeds=seeds, out=out, restart=restart, quiet=quiet or as_json)
    show(found, as_json, study_views.claim_run)


@claims_app.command("show")
def show_claim(
    slug: Annotated[str, typer.Argument(metavar="CLAIM", help="The name of its folder, such as one-epoch.")],
    as_json: AsJson = False,
) -> None:
    """Show a claim: what was published, how it is put here, and what came out."""
    from foretrain import api, study_views

    show(api.show_claim(slug), as_json, study_views.claim)


@commands.command()
def demo(
    out: Annotated[Path, typer.Option(help="The study's directory.")] = Path("studies/demo"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Steer small models by feedback, beside plain ones and controls, in some minutes on two cores."""
    from foretrain import api, study_views

    show(api.demo(out, quiet=quiet or as_json), as_json, study_views.study)
