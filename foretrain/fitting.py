"""Fitting: whether what a recipe names fits together; what does not is refused, or noted, before compute is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from foretrain.errors import RequestError
from foretrain.modalities.base import Modality, all_modalities, modality_named
from foretrain.models.base import families, family
from foretrain.parts import Part
from foretrain.recipe import Recipe

if TYPE_CHECKING:
    from foretrain.plan import Plan

_NEARLY = 0.95
"""Share of an epoch from which on it counts as a whole one."""

_FAMILIES = {"decoder": "a decoder", "encoder": "an encoder", "vision": "a model of images"}


def refuse_other_family(recipe: Recipe, modality: Modality, config: PretrainedConfig) -> None:
    """Say so where the model is not of the family that the objective trains."""
    kind, possible = family(config), families(config)
    for objective in recipe.objective.members():
        fitting = modality.families if objective.family == "any" else (objective.family,)
        if not set(possible) & set(fitting):
            hint = " Model 'eurobert' reads both ways, and causally too." if kind != "vision" else ""
            raise RequestError(
                f"objective '{objective.kind}' trains {' or '.join(_FAMILIES[name] for name in fitting)}, but model "
                f"'{recipe.model.kind}' is {_FAMILIES[kind]}.{hint}"
            )


def refuse_other_modality(recipe: Recipe, modality: Modality) -> None:
    """Say so where a part or a path of the recipe is not for what the objective learns from."""
    learns = f"objective '{recipe.objective.kind}' learns from {modality.noun}"
    for where, part in _parts(recipe):
        if part.modality not in (modality.kind, "any"):
            raise RequestError(
                f"{where}: {part.axis} '{part.kind}' works on {modality_named(part.modality).noun}, but {learns}. "
                "Leave it out, or take another objective."
            )
    for name, domain in recipe.corpus.items():
        paths = [*(domain.path if isinstance(domain.path, list) else [domain.path]), domain.validation, domain.steer]
        for path in paths:
            if isinstance(path, str) and not modality.reads(path):
                for other in all_modalities():
                    if other.reads(path):
                        raise RequestError(
                            f"corpus.{name}: {path} holds {other.noun}, but {learns}. Take an objective that learns "
                            f"from {other.noun}, or other data."
                        )


def _parts(recipe: Recipe) -> Iterator[tuple[str, Part]]:
    """The parts of a recipe that may be for one modality alone, and where they stand."""
    if recipe.tokenizer is not None:
        yield "tokenizer", recipe.tokenizer
    for axis, listed in (("steering", recipe.steering), ("probes", recipe.probes)):
        yield from ((f"{axis}[{number}]", part) for number, part in enumerate(listed))
    yield from ((f"feedback.{name}", part) for name, part in recipe.feedback.items())
    yield from ((f"tasks.{name}", part) for name, part in recipe.tasks.items())
    yield from ((f"corpus.{name}.score", part.score) for name, part in recipe.corpus.items() if part.score is not None)


def refuse_overlap(recipe: Recipe, text: str, notes: list[str]) -> None:
    """Refuse an overlap of the corpus with held-out items (`text`, empty where there is none), or note it."""
    if not text:
        return
    if recipe.overlap == "error":
        raise RequestError(
            f"{text} Take these items out of the corpus or of the set, or say `overlap: warn` to go on all the same."
        )
    notes.append(text)


def note_orders(plan: Plan) -> None:
    """Say so where a run sees the beginning of an order alone."""
    for name, epochs in plan.epochs().items():
        if plan.recipe.corpus[name].order.by_score and 0 < epochs < _NEARLY:
            plan.notes.append(
                f"domain '{name}' is read in the order of its scores, and the run reads {100 * epochs:.0f} % of it, so "
                f"the rest is never seen; lengthen the run, or keep less text (corpus.{name}.keep)"
            )


def note_metadata(plan: Plan) -> None:
    """Say so where what stands in front of a document may be read, or guessed, from other documents of its window."""
    recipe = plan.recipe
    for name, domain in recipe.corpus.items():
        if domain.metadata is not None and not (recipe.documents == "separate" and domain.order.aligned):
            plan.notes.append(
                f"the documents of '{name}' have metadata in front, but windows may begin within a document, or show "
                f"it others; `documents: separate` and `corpus.{name}.order: aligned` keep each with its own"
            )


def note_split(plan: Plan) -> None:
    """Say so where what is called validation is measured on another split.

    Raises:
        RequestError: no domain has such a split.
    """
    split = plan.recipe.evaluation.split
    if split == "validation":
        return
    refuse_missing_split(plan, split, "evaluation.split")
    plan.notes.append(
        f"what is called validation is measured on the {split} split (evaluation.split), not on what judges"
    )


def refuse_missing_split(plan: Plan, split: str, asks: str) -> None:
    """Say so where no domain has a split that something (`asks`) is to be measured on."""
    if not plan.sets(split):
        name = max(plan.weights, key=lambda domain: plan.weights[domain])
        raise RequestError(
            f"{asks}: no domain has a {split} split to measure on; give one of them a share of its documents or a file "
            f"of its own, such as corpus.{name}.{split}: 0.02."
        )
