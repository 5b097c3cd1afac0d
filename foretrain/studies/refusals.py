"""Refusals: what the plans of all arms tell is wrong with a study, before its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretrain.comparison import recipe_difference
from foretrain.errors import RequestError, unknown_name
from foretrain.plain_yaml import parse_yaml
from foretrain.studies.faults import sets_key
from foretrain.studies.planning import ArmPlan
from foretrain.studies.study import Study
from foretrain.studies.trials import FREE

CLOSE = 0.01
"""Arms match when they differ by no more than this share of the baseline's cost, or by one step."""


def refuse_other_study(study: Study, folder: Path) -> None:
    """Refuse a directory that another study was conducted in: one of another name, or on another base.

    Raises:
        RequestError: it was.
    """
    try:
        before = parse_yaml((folder / "study.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(before, dict) or not isinstance(before.get("base"), dict):
        return
    changed = [c for c in recipe_difference(before["base"], study.base) if not c[0].startswith(FREE)]
    told = [f"base.{key} was {old!r} and is {new!r}" for key, old, new in changed[:4]]
    if before.get("name") != study.name:
        told = [f"name was {before.get('name')!r} and is {study.name!r}"]
    if told:
        raise RequestError(
            f"{folder} holds another study ({'; '.join(told)}). Give this study a directory of its own by `--out`, or "
            "begin it again by `--restart`."
        )


def refuse_unmatched(study: Study, plans: Mapping[str, ArmPlan]) -> float:
    """The largest difference of an arm's cost from the baseline's, as a share.

    Raises:
        RequestError: an arm differs by more than one per cent and more than one step.
    """
    if study.match == "none":
        return 0.0
    unit, base = study.match, plans[study.baseline]
    largest, unmatched = 0.0, []
    for plan in plans.values():
        difference = abs(plan.total(unit) - base.total(unit))
        largest = max(largest, difference / base.total(unit))
        if difference > max(CLOSE * base.total(unit), plan.step(unit), base.step(unit)):
            unmatched.append(plan)
    if unmatched:
        own = [plan for plan in unmatched if any(sets_key(change, "budget") for change in _all_changes(plan))]
        remedy = (
            "Leave out their `budget`, so that each is given the baseline's,"
            if own
            else "Give the base a budget of more steps, so that their whole steps come closer to it,"
        )
        told = ", ".join(f"'{plan.name}' spends {plan.total(unit):.4g}" for plan in unmatched)
        raise RequestError(
            f"The arms do not match: '{base.name}' spends {base.total(unit):.4g} {unit} a trial, but {told}. {remedy} "
            "or say `match: none` and why in `reason`."
        )
    return largest


def _all_changes(plan: ArmPlan) -> list[Mapping[str, Any]]:
    return [plan.arm.set, *plan.arm.members]


def refuse_unknown_figures(study: Study, plans: Mapping[str, ArmPlan]) -> dict[str, bool]:
    """Whether higher is better, by metric: of its figure, however that is read.

    Raises:
        RequestError: an arm will not produce the figure of a metric, or nobody says which way is better.
    """
    directions: dict[str, bool] = {}
    for name, metric in study.metrics.items():
        figure = metric.figure or name
        for plan in plans.values():
            known: dict[str, bool | None] = dict(plan.runs[0].cost["figures"])
            if plan.arm.merge is not None:  # what comes out of a merge was never trained, and has no probes
                known = {each: way for each, way in known.items() if each.startswith(("validation", "task"))}
                known["merge/"] = None
            if figure not in known and not any(each.endswith("/") and figure.startswith(each) for each in known):
                raise RequestError(f"metrics.{name}: in arm '{plan.name}' {unknown_name('figure', figure, known)}")
            if metric.at != "end":
                _refuse_without_curve(name, figure, f"`at: {metric.at}`", plan)
            elif study.stopping is not None and metric.judged:
                _refuse_without_curve(name, figure, "`stopping`", plan)
            higher = known.get(figure) if metric.direction is None else metric.direction == "higher"
            if higher is None:
                raise RequestError(f"metrics.{name}: say which way is better: `direction: lower` or `higher`.")
            directions[name] = higher
    return directions


def _refuse_without_curve(name: str, figure: str, asked: str, plan: ArmPlan) -> None:
    if plan.arm.merge is not None:
        raise RequestError(f"metrics.{name}: arm '{plan.name}' merges its runs, so there is no curve for {asked}.")
    if not any(figure.startswith(beginning) for beginning in plan.runs[0].cost["evaluated"]):
        raise RequestError(
            f"metrics.{name}: {asked} needs '{figure}' while the run goes on: give its task an `every`, or let it be "
            "reported only (`judged: false`, at the end)."
        )


def refuse_incomparable(study: Study, plans: Mapping[str, ArmPlan]) -> None:
    """Refuse a judged figure that means something else in one arm than in the baseline.

    Raises:
        RequestError: losses per token of two tokenizers, figures on two texts or other items, means by other weights.
    """
    base = plans[study.baseline].runs[0].cost
    for name, metric in study.metrics.items():
        figure = metric.figure or name
        for plan in plans.values() if metric.judged else ():
            for cost in (run.cost for run in plan.runs):
                if cost["tokenizer"] != base["tokenizer"] and figure.endswith("loss"):
                    why = "its tokenizer differs, and losses per token do not compare; bits per byte do"
                elif figure == "validation/loss" and cost["weights"] != base["weights"]:
                    why = "it is a mean by the domains' weights, which differ; validation/mean_loss compares"
                elif figure.startswith("validation/") and (told := _other_text(figure, cost, base)):
                    why = told
                elif figure.startswith("task/") and _other_task(figure, cost["tasks"], base["tasks"]):
                    why = "the task differs"
                else:
                    continue
                raise RequestError(
                    f"metrics.{name}: '{figure}' of arm '{plan.name}' and of '{study.baseline}' do not compare: {why}."
                )


def _other_text(figure: str, cost: Mapping[str, Any], base: Mapping[str, Any]) -> str | None:
    """Why a validation figure of two arms is not measured on the same text; None where it is."""
    ours, theirs = cost["judges"], base["judges"]
    for domain in [figure.split("/")[1]] if figure.count("/") == 2 else [*theirs, *ours]:
        one, other = ours.get(domain), theirs.get(domain)
        if one is None or other is None or one["text"] != other["text"]:
            return "the text it is measured on differs"
        if cost["tokenizer"] != base["tokenizer"]:
            if any(each["read"] < each["all"] for each in (one, other)):
                return (
                    "evaluation.tokens ends their text at two places, since their tokenizers differ; make it "
                    f"{max(one['all'], other['all'])} or more"
                )
        elif (one["tokens"], one["read"]) != (other["tokens"], other["read"]):
            return "the text it is measured on differs"
    return None


def _other_task(figure: str, tasks: Mapping[str, str], base: Mapping[str, str]) -> bool:
    task = figure.split("/")[1]
    return tasks.get(task) != base.get(task)


def refuse_unmergeable(plans: Mapping[str, ArmPlan]) -> None:
    """Refuse to train what could not be merged afterwards.

    Raises:
        RequestError: members read other ids or contexts, or their objective keeps something beside the model.
    """
    for plan in plans.values():
        if plan.arm.merge is None:
            continue
        first = plan.runs[0].cost
        for run in plan.runs:
            if run.cost["tokenizer"] != first["tokenizer"]:
                why = "their tokenizers differ, so one id stands for two texts"
            elif run.cost["context"] != first["context"]:
                why = f"they read {first['context']} and {run.cost['context']} tokens at once (model.context)"
            elif run.cost["stateful"]:
                why = "their objective keeps something of its own beside the model (modules, state)"
            else:
                continue
            raise RequestError(f"arms.{plan.name}: its runs cannot be merged: {why}.")
