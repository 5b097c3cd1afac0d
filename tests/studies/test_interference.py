"""The interference test on made-up figures: a planted pair lights up, nothing else does, and chance stays at alpha."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from foretrain.studies.interference import CONTROL, JOINT, UNTOUCHED, agreement, answers, cost, interference

NAMES = ["canaries", "facts", "poison", "sums"]


def made_up(
    effects: Mapping[tuple[str, str], float],
    *,
    seeds: int = 6,
    noise: float = 0.01,
    smallest: float = 0.05,
    seed: int = 0,
    joint: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A `study.json` in which intervention j moves the metric of i by `effects[j, i]`; together, by the sum."""
    dice = np.random.default_rng(seed)
    common = dice.normal(0, 0.1, (len(NAMES), seeds))  # of the seed, in every arm

    def arm(moved: Mapping[str, float]) -> dict[str, Any]:
        values = {name: common[i] + moved.get(name, 0.0) + dice.normal(0, noise, seeds) for i, name in enumerate(NAMES)}
        metrics = {
            name: {"values": {str(k): float(value) for k, value in enumerate(found)}} for name, found in values.items()
        }
        metrics["validation/loss"] = {"values": {str(k): float(dice.normal(2, 0.001)) for k in range(seeds)}}
        return {"metrics": metrics, "flops": 100.0}

    total = {i: sum(effects.get((j, i), 0.0) for j in NAMES) for i in NAMES} | dict(joint or {})
    arms = {UNTOUCHED: arm({}), JOINT: arm(total)}
    arms |= {j: arm({i: effects.get((j, i), 0.0) for i in NAMES}) for j in NAMES}
    metric = {"direction": "higher", "smallest": smallest}
    return {
        "alpha": 0.05,
        "seeds": list(range(seeds)),
        "arms": arms,
        "metrics": dict.fromkeys(NAMES, metric) | {"validation/loss": {"direction": "lower", "smallest": 0.01}},
        "noise": {name: {"sd": 0.1} for name in [*NAMES, "validation/loss"]},
        "products": {"base": {"flops": 50.0}},
        "totals": {"flops": 100.0 * seeds * len(arms)},
    }


OWN = {(name, name): 0.5 for name in NAMES}


def test_a_planted_pair_lights_up_and_no_other() -> None:
    study = made_up({**OWN, ("poison", "facts"): -0.2})
    found = interference(study, NAMES)
    assert found["interacting"] == [["poison", "facts"]]
    assert found["matrix"]["poison"]["facts"]["verdict"] == "worse"
    assert len(found["safe"]) == 11 and found["undecided"] == []
    assert found["changed"] == ["facts"] and found["preserved"] == ["canaries", "poison", "sums"]
    assert found["seen"] == NAMES
    assert found["words"][0].startswith("poison changes what facts is read by. Worse by 0.2")
    assert json.loads(json.dumps(found)) == found


def test_the_matrix_is_what_each_does_to_each() -> None:
    effects = {**OWN, ("sums", "canaries"): 0.3}
    study = made_up(effects, noise=0.0)
    found = interference(study, NAMES)
    for acting in NAMES:
        for read in NAMES:
            cell = found["matrix"][acting][read]
            assert cell["difference"] == pytest.approx(effects.get((acting, read), 0.0))
    assert found["joint"]["canaries"]["difference"] == pytest.approx(0.8)
    assert found["kept"]["canaries"]["difference"] == pytest.approx(0.3)


def test_an_effect_that_only_all_together_have_is_seen() -> None:
    found = interference(made_up(OWN, joint={"sums": 0.1}), NAMES)
    assert found["interacting"] == [] and found["changed"] == ["sums"]
    assert found["words"][0].startswith("sums has another effect where all act. Worse by 0.3")


def test_off_diagonals_are_corrected_as_one_family() -> None:
    """Holm, restated: sorted p values times the number of hypotheses left, never falling."""
    study = made_up({**OWN, ("poison", "facts"): -0.02}, smallest=0.0)
    found = interference(study, NAMES)
    pairs = [(j, i) for j in NAMES for i in NAMES if i != j]
    plain = []
    for j, i in pairs:
        ours, theirs = (
            [study["arms"][arm]["metrics"][i]["values"][str(k)] for k in range(6)] for arm in (j, UNTOUCHED)
        )
        plain.append(float(stats.ttest_rel(ours, theirs).pvalue))
    order = np.argsort(plain)
    steps = np.maximum.accumulate([min(1.0, (12 - rank) * plain[place]) for rank, place in enumerate(order)])
    for place, expected in zip(order, steps, strict=True):
        j, i = pairs[place]
        assert found["matrix"][j][i]["p_adjusted"] == pytest.approx(expected)


def test_where_nothing_interacts_something_is_said_to_in_at_most_alpha_of_studies() -> None:
    runs = 80
    alarms = sum(
        bool(interference(made_up(OWN, smallest=0.0, seeds=5, seed=seed), NAMES)["interacting"]) for seed in range(runs)
    )
    assert alarms <= stats.binom.ppf(0.999, runs, 0.05)
    seen = sum(
        bool(interference(made_up({**OWN, ("sums", "facts"): 0.05}, seeds=5, seed=seed), NAMES)["interacting"])
        for seed in range(20)
    )
    assert seen >= 15


def test_an_effect_that_is_not_seen_is_told() -> None:
    found = interference(made_up({**OWN, ("sums", "sums"): 0.0}), NAMES)
    assert found["seen"] == NAMES[:3]
    assert found["words"][-1].startswith("The effect of sums on its own metric was not seen")


def test_a_failed_trial_settles_nothing() -> None:
    study = made_up(OWN)
    del study["arms"]["sums"]["metrics"]["facts"]["values"]["3"]
    found = interference(study, NAMES)
    assert ["sums", "facts"] in found["undecided"] and found["matrix"]["sums"]["facts"]["seeds"] == [0, 1, 2, 4, 5]


def test_one_verdict_for_each_intervention_and_one_for_the_model() -> None:
    study = made_up({**OWN, ("sums", "sums"): 0.0, ("poison", "poison"): -0.3})
    found = answers(study, NAMES, "validation/loss")
    verdicts = {name: cell["verdict"] for name, cell in found["verdicts"].items()}
    assert verdicts == {"canaries": "better", "facts": "better", "poison": "worse", "sums": "no difference"}
    assert found["validation"]["verdict"] == "no difference"
    # Corrected for the interventions alone: the largest p of four stays as it is, the smallest is times four.
    ps = sorted((cell["p"], cell["p_adjusted"]) for cell in found["verdicts"].values())
    assert ps[0][1] == pytest.approx(4 * ps[0][0]) and found["validation"]["p"] == found["validation"]["p_adjusted"]


def test_agreement_is_counted_in_seed_deviations() -> None:
    study = made_up(OWN, joint={"facts": 0.1})
    found = agreement(study, NAMES)
    assert [name for name in NAMES if found[name]["agrees"]] == ["canaries", "poison", "sums"]
    groups = [list(study["arms"][arm]["metrics"]["facts"]["values"].values()) for arm in (JOINT, "facts")]
    pooled = np.sqrt(np.mean([np.var(group, ddof=1) for group in groups]))
    expected = abs(np.mean(groups[0]) - np.mean(groups[1])) / pooled
    assert found["facts"]["deviations"] == pytest.approx(expected) and expected > 2
    same = copy.deepcopy(study)
    for arm in (JOINT, "sums"):
        same["arms"][arm]["metrics"]["sums"]["values"] = dict.fromkeys(map(str, range(6)), 0.0)
    assert agreement(same, NAMES)["sums"]["agrees"] is True


def test_cost_is_counted_against_a_run_for_each() -> None:
    check, full = made_up(OWN), made_up(OWN)
    full["totals"]["flops"] = 2 * 6 * 100.0
    check["totals"]["flops"] = 6 * 6 * 10.0
    found = cost(full, check, NAMES)
    assert found["check"] == 360 + 6 * 50 and found["full"] == 1200 and found["separate"] == 5 * 6 * 100
    assert found["saved"] == pytest.approx(1 - (660 + 1200) / 3000)
    assert cost(None, check, NAMES) == {"check": 660, "full": None, "flops": 660, "separate": None, "saved": None}


def test_a_control_tells_whether_the_check_sees() -> None:
    study = made_up(OWN)
    noisy = made_up({("sums", "facts"): 0.3})["arms"]["sums"]
    quiet = made_up({})["arms"]["sums"]
    for arm, seen in ((noisy, True), (quiet, False)):
        study["arms"][CONTROL] = arm
        found = interference(study, NAMES, "facts")
        assert found["control"]["disturbs"] == "facts" and found["control"]["detected"] == seen
        assert found["interacting"] == [] and len(found["safe"]) + len(found["undecided"]) == 12
        told = "was seen to." if seen else "was not seen to, so the check may have missed others"
        assert any(f"The control, which should disturb facts, {told}" in words for words in found["words"])
    assert interference(study, NAMES)["control"] is None
