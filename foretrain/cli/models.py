"""Commands for the model that a run leaves, or that another tool made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretrain.cli.options import AsJson, Commands, RunPath, Step, show

commands = typer.Typer(cls=Commands)


@commands.command()
def export(
    run: RunPath,
    to: Annotated[str, typer.Option(help="The format: hf (Hugging Face transformers).")] = "hf",
    out: Annotated[Path | None, typer.Option(help="The folder to write; RUN/export if left out.")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's model as a folder that other tools load."""
    from foretrain import api, views

    folder = api.export(run, to=to, out=out, step=step)
    show({"path": str(folder)}, as_json, views.path)


@commands.command()
def merge(
    file: Annotated[
        Path, typer.Argument(metavar="MERGE", help="A file with `merge:` and, where it is of runs, `runs:`.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Make one model of several: weights one tensor at a time, or an arithmetic of logits that `sample` reads."""
    from foretrain import api, views

    show({"path": str(out), **api.merge(file, out=out)}, as_json, views.merge)


@commands.command()
def sample(
    run: RunPath,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="What the text begins with (repeatable).")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="At most this many tokens.")] = 100,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Draw from the likeliest share p.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Let a run's model write."""
    from foretrain import api, views

    texts = api.sample(
        run,
        prompts or [""],
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        count=count,
        step=step,
    )
    show(texts, as_json, views.samples)


@commands.command()
def evaluate(
    run: RunPath,
    tasks: Annotated[Path | None, typer.Option(help="A YAML file with `tasks:`; the recipe's own if left out.")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Measure tasks on a run's model, with 95 % intervals over items."""
    from foretrain import api, views

    show(api.evaluate(run, tasks=tasks, step=step), as_json, views.measures)


@commands.command()
def finetune(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory, or a model's folder.")],
    tasks: Annotated[
        Path,
        typer.Option("--task", metavar="FILE", help="A YAML file with `tasks:` of kind finetune or finetune_tokens."),
    ],
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Train a copy of a model on labels, at several learning rates and seeds, and say how well it does."""
    from foretrain import api, views

    show(api.finetune(model, tasks, step=step), as_json, views.finetuned)


@commands.command()
def flips(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A run, or a folder with a model.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A run, or a folder with a model.")],
    tasks: Annotated[Path | None, typer.Option(help="A YAML file with `tasks:`; those of NEW if left out.")] = None,
    metric: Annotated[str | None, typer.Option(help="The metric whose items are compared.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page (HTML) with every item that flipped.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count what a new model gets wrong that an old one got right, and the other way round."""
    from foretrain import api, views

    show(api.flips(str(old), str(new), tasks=tasks, metric=metric, out=out), as_json, views.flips)
