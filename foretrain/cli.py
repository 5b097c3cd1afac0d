"""The command line: each command is one call of the Python API, and the words around it.

Nothing heavy is imported before a command needs it, so `foretrain --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from foretrain.errors import ForetrainError, Interrupted, RequestError

if TYPE_CHECKING:
    from foretrain.console import Terminal
    from foretrain.views import View

REFUSED_BY_THE_SYSTEM = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}
"""Errors of the operating system that are about the user's machine and not about foretrain."""


class Commands(TyperGroup):
    """A group of commands in which Ctrl-C is an interruption like any other (exit code 3)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("Interrupted.") from None


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
data_app = typer.Typer(cls=Commands, help="Look at what a recipe would train on.", no_args_is_help=True)
app.add_typer(data_app, name="data")
corpus_app = typer.Typer(cls=Commands, help="Make a corpus of raw text.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
claims_app = typer.Typer(cls=Commands, help="Published claims, and what became of them here.")
app.add_typer(claims_app, name="claims")

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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from foretrain import __version__

        print(__version__)
        raise typer.Exit


@app.command()
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
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
    _show({"path": str(done.path), "result": done.result()}, as_json, views.result)


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Resolve a recipe, count parameters and FLOPs, estimate memory and time; train nothing."""
    from foretrain import api, views

    plan = api.check(recipe, overrides=overrides or [])
    _show(plan.plain(), as_json, views.plan)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe."""
    from foretrain import reference

    _terminal().json(reference.schema())


@app.command()
def parts(
    name: Annotated[str | None, typer.Argument(metavar="[KIND]", help="An axis (schedule) or a kind (cosine).")] = None,
    as_json: AsJson = False,
) -> None:
    """List what a recipe may name: every part, with its fields, defaults and paper."""
    from foretrain import reference, views

    _show(reference.find_parts(name), as_json, views.parts)


@app.command()
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
    _show({"path": str(folder)}, as_json, views.path)


@app.command()
def merge(
    file: Annotated[
        Path, typer.Argument(metavar="MERGE", help="A file with `merge:` and, where it is of runs, `runs:`.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Make one model of several: weights one tensor at a time, or an arithmetic of logits that `sample` reads."""
    from foretrain import api, views

    _show({"path": str(out), **api.merge(file, out=out)}, as_json, views.merge)


@app.command()
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
    _show(texts, as_json, views.samples)


@app.command()
def evaluate(
    run: RunPath,
    tasks: Annotated[Path | None, typer.Option(help="A YAML file with `tasks:`; the recipe's own if left out.")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Measure tasks on a run's model, with 95 % intervals over items."""
    from foretrain import api, views

    _show(api.evaluate(run, tasks=tasks, step=step), as_json, views.measures)


@app.command()
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

    _show(api.finetune(model, tasks, step=step), as_json, views.finetuned)


@app.command()
def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write a run's report.html again."""
    from foretrain import api, views

    _show({"path": str(api.report(run))}, as_json, views.path)


@app.command("ls")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from foretrain import views
    from foretrain.run_directory import list_runs

    _show(list_runs(folder), as_json, views.runs)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories.")],
    as_json: AsJson = False,
) -> None:
    """Put runs side by side: final figures, costs, and where their recipes differ."""
    from foretrain import api, views

    _show(api.compare(runs), as_json, views.comparison)


@app.command()
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

    _show(api.flips(str(old), str(new), tasks=tasks, metric=metric, out=out), as_json, views.flips)


@app.command()
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
        _show(api.ledger((runs or [Path("runs")])[0]), as_json, views.ledger)
    else:
        found = api.forecast(runs or [], law=law, figure=figure, schedule=schedule, to=to)
        _show(found, as_json, views.forecast)


@app.command()
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
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
        _show(api.noise(noise, **common), as_json, study_views.noise)
    elif file is not None:
        found = api.study(file, **common)
        _show(found, as_json, study_views.train_once if "interventions" in found else study_views.study)


@claims_app.callback(invoke_without_command=True)
def list_claims(context: typer.Context, as_json: AsJson = False) -> None:
    """List published claims with their last verdict: reproduced, not reproduced, undecided or not run."""
    from foretrain import api, study_views

    if context.invoked_subcommand is None:
        _show(api.list_claims(), as_json, study_views.claims)


@claims_app.command("run")
def run_claim(
    slug: Annotated[str, typer.Argument(metavar="CLAIM", help="The name of its folder, such as one-epoch.")],
    scale: Annotated[str, typer.Option(help="smoke (seconds), small (minutes on two cores) or full.")] = "small",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, in place of the claim's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's directory; studies/claims-CLAIM if left out.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier study in that directory.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the study of a claim and keep its verdict."""
    from foretrain import api, study_views

    found = api.run_claim(slug, scale=scale, seeds=seeds, out=out, restart=restart, quiet=quiet or as_json)
    _show(found, as_json, study_views.claim_run)


@claims_app.command("show")
def show_claim(
    slug: Annotated[str, typer.Argument(metavar="CLAIM", help="The name of its folder, such as one-epoch.")],
    as_json: AsJson = False,
) -> None:
    """Show a claim: what was published, how it is put here, and what came out."""
    from foretrain import api, study_views

    _show(api.show_claim(slug), as_json, study_views.claim)


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
    _show(found, as_json, views.batches)


@corpus_app.command("build")
def build_corpus(
    file: Annotated[Path, typer.Argument(metavar="BUILD", help="What it is built from and how (.yaml).")],
    out: Annotated[Path | None, typer.Option(help="Its folder; corpora/NAME if left out.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the build, such as shards=8 (repeatable)."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier build in that folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Filter, deduplicate, score and write documents. The same command goes on with a build that was stopped."""
    from foretrain import api, views

    found = api.build_corpus(file, out=out, overrides=overrides or [], restart=restart, quiet=quiet or as_json)
    _show(found, as_json, views.corpus)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The study's directory.")] = Path("studies/demo"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Steer small models by feedback, beside plain ones and controls, in some minutes on two cores."""
    from foretrain import api, study_views

    _show(api.demo(out, quiet=quiet or as_json), as_json, study_views.study)


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
        _terminal().say(str(error))
        sys.exit(error.exit_code)
    except ForetrainError as error:
        _leave(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_SYSTEM:
            _own_fault()
        _leave(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror), 1)
    except Exception:
        _own_fault()


def _rank() -> int:
    """Which of the processes that `torchrun` started this is; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def _terminal() -> Terminal:
    from foretrain.console import Terminal

    return Terminal(main=_rank() == 0)


def _show(value: Any, as_json: bool, view: Callable[[Any], View]) -> None:
    terminal = _terminal()
    if as_json:
        terminal.json(value)
        return
    for piece in view(value):
        terminal.show(piece)


def _leave(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    if _rank() == 0:
        _terminal().fail(text)
    else:
        print(f"rank {_rank()}: {text}", file=sys.stderr)
    sys.exit(code)


def _own_fault() -> NoReturn:
    traceback.print_exc()
    _leave("This is a fault of foretrain, not of your request: please report it with the lines above.", 1)


if __name__ == "__main__":
    main()
