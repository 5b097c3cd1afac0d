"""Faults: what is wrong with a study that its file alone tells, before anything is planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from foretrain.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from foretrain.studies.study import Arm, Study

PRODUCT = "product:"
"""What a text begins with that stands for the folder of a product's model."""


def control_name(baseline: str, arm: str) -> str:
    """The name of the baseline that was given an arm's one-off costs too."""
    return f"{baseline}-given-{arm}"


def product_names(changes: Any) -> Iterable[str]:
    """Names of the products that changes of a recipe use, in order, as often as they do."""
    if isinstance(changes, Mapping):
        changes = list(changes.values())
    if isinstance(changes, list | tuple):
        for value in changes:
            yield from product_names(value)
    elif isinstance(changes, str) and changes.startswith(PRODUCT):
        yield changes.removeprefix(PRODUCT)


def named_in(arm: Arm) -> list[Any]:
    """All of an arm that may name products, as plain data."""
    return [arm.set, *arm.members, *([] if arm.merge is None else [arm.merge.model_dump(mode="json")])]


def sets_key(changes: Mapping[str, Any], key: str) -> bool:
    """Whether changes set a key at the top of a recipe, or something below it."""
    return any(str(name).partition(".")[0] == key for name in changes)


def study_faults(study: Study) -> list[str]:
    """All that does not fit together, a sentence each."""
    faults = [*_names(study), *_products(study), *_changes(study)]
    if len(set(study.seeds)) < len(study.seeds) or min(study.seeds) < 0:
        faults.append("seeds: should be different whole numbers from 0 on")
    if study.match == "none" and not study.reason.strip():
        faults.append("match: none needs a `reason`, which is shown beside every verdict")
    counts = {name: len(found.combinations()) if (found := study.tuning(name)) else 0 for name in study.arms}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        faults.append(f"tune: every arm gets the same number of tuning trials, but there are: {told}")
    return faults


def _names(study: Study) -> Iterable[str]:
    if study.baseline not in study.arms:
        yield f"baseline: {unknown_name('arm', study.baseline, study.arms)}"
    folders: dict[str, str] = {}
    for name in study.arms:
        if (other := folders.setdefault(name.lower(), name)) != name:
            yield f"arms: '{other}' and '{name}' would be one folder where file names know no case; rename one"
    for name in study.arms:
        if (taken := control_name(study.baseline, name)) in study.arms:
            yield f"arms: '{taken}' is what the baseline with the one-off costs of '{name}' is called; rename it"
    seen = set()
    for pair in study.contrasts:
        yield from (f"contrasts: {unknown_name('arm', name, study.arms)}" for name in pair if name not in study.arms)
        if pair[0] == pair[1]:
            yield f"contrasts: {pair[0]} is compared with itself"
        elif frozenset(pair) in seen:
            yield f"contrasts: {pair[0]} and {pair[1]} are compared twice, and each one is corrected for"
        seen.add(frozenset(pair))


def _products(study: Study) -> Iterable[str]:
    for name, arm in study.arms.items():
        if arm.start and arm.start not in study.products:
            yield f"arms.{name}.start: {unknown_name('product', arm.start, study.products)}"
        for used in dict.fromkeys(product_names(named_in(arm))):
            if used not in study.products:
                yield f"arms.{name}: {unknown_name('product', used, study.products)}"
    for name, product in study.products.items():
        for used in dict.fromkeys(product_names(product.set)):
            yield f"products.{name}: a product is made of its recipe alone, and cannot use the product '{used}'"


def _changes(study: Study) -> Iterable[str]:
    for name, arm in study.arms.items():
        if any(sets_key(changes, "seed") for changes in [arm.set, *arm.members]):
            yield f"arms.{name}: sets `seed`, but all arms run on the study's `seeds`, by which they are paired"
    grids = {"tune": study.tune} | {f"arms.{name}.tune": arm.tune for name, arm in study.arms.items()}
    for place, tuning in grids.items():
        for key in ("seed", "budget", "evaluation"):
            if tuning is not None and sets_key(tuning.grid, key):
                yield f"{place}: `{key}` is the same in all tuning trials of an arm, and cannot be chosen"
        if tuning is not None and any(True for _ in product_names(tuning.grid)):
            yield f"{place}: a grid cannot hold products; make each an arm"


def refuse_recipes(study: Study, source: str) -> None:
    """See that every arm's recipe, with every choice of its grid, is one that can be run and matched.

    Raises:
        RequestError: a change names an unknown key or has a wrong value, a budget is in minutes, or an arm is to be
            tuned on a `steer` split that there is not.
    """
    for name, arm in study.arms.items():
        tuning = study.tuning(name)
        for choice in tuning.combinations() if tuning else [{}]:
            for member in arm.members or [{}]:
                recipe = study.recipe([arm.set, member, choice], f"{source}, arm '{name}'")
                if recipe.budget.minutes is not None:
                    whose = "the base" if study.base["budget"]["minutes"] is not None else f"arm '{name}'"
                    raise RequestError(
                        f"{source}: {whose} has a budget in minutes, which buys another number of steps each time; "
                        "give it in steps, tokens or flops, so that the arms can be matched."
                    )
                if tuning and not any(domain.steer for domain in recipe.corpus.values()):
                    raise RequestError(
                        f"{source}, arm '{name}': tuning looks at the `steer` split, so that nothing is tuned on what "
                        "judges, and no domain has one; give it a share, such as corpus.NAME.steer: 0.05."
                    )
