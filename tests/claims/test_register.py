from __future__ import annotations

from pathlib import Path
from typing import Any

from foretrain.claims import words
from foretrain.claims.claim import Expectation, make_claim
from foretrain.claims.finding import Entry
from foretrain.claims.register import register
from foretrain.claims.results import result_data
from tests.claims.test_results import WHERE
from tests.claims.tiny_claim import claim_data, contrast, found


def made(slug: str, *contrasts: dict[str, Any], run: bool = True, **changes: Any) -> Entry:
    folder = Path(slug)
    claim = make_claim(claim_data(**changes), folder)
    result = result_data(claim, folder, "small", found(*contrasts), WHERE, "2026-01-02") if run else None
    return Entry(slug, folder, claim, result)


OTHER = {"title": "Another | one", "year": 2021}


def rows(text: str) -> list[list[str]]:
    table = text.partition("| system |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]


def test_one_row_for_each_system() -> None:
    text = register([made("a"), made("a-more", run=False), made("b", contrast("slow", "better"), paper=OTHER)])
    assert "3 claims of 2 systems: 1 reproduced, 1 not reproduced, 1 not run." in text
    first, second = rows(text)
    assert first[0] == "[Slow is bad](https://arxiv.org/abs/2001.00001) (2020)"
    assert first[1] == "[a](#a)<br>[a-more](#a-more)"
    assert first[2] == "**reproduced**<br>not run"
    assert first[3] == "+0.55 (27 % higher)<br>–"
    assert first[4] == "25 % higher<br>25 % higher"
    assert first[5] == "+0.40 to +0.70<br>–"
    assert first[6:] == ["2<br>–", "9.0e9 FLOPs, 3.0 s<br>–", "2026-01-02<br>–"]
    assert second[0] == "Another \\| one (2021)"
    assert second[2] == "**not reproduced**"


def test_a_section_says_all_of_a_claim() -> None:
    text = register([made("a", decided=["Ten steps."])])
    for piece in (
        "## a\n",
        "A rate near zero raises the loss by 25 %.",
        "Does a rate near zero learn?",
        "| slow | `optimizer.lr: 1e-06` | 2.600 ± 0.070 | 8 | 2.05K | 1.5e9 | 0.5 s |",
        "the slow arm is no worse.",
        "A thousand times fewer parameters. Nothing learns without steps.",
        "- Ten steps.",
        "expected worse, found worse. worse, says the study.",
        "torch 2.13.0",
        "2 cores of Some CPU",
    ):
        assert piece in text


def test_what_all_arms_change_alike_is_said_once_and_an_order_that_differs_is_not_alike() -> None:
    arms = {
        "plain": {"batch": {"tokens": 64}, "stages": {"a": {"weights": {"prose": 1}}, "b": {"weights": {"prose": 1}}}},
        "slow": {
            "batch": {"tokens": 64},
            "stages": {"b": {"weights": {"prose": 1}}, "a": {"weights": {"prose": 1}}},
            "optimizer.lr": 1e-6,
        },
    }
    text = register([made("a", study={**claim_data()["study"], "arms": arms}, run=False)])
    assert "In every arm: `batch.tokens: 64`.\n" in text
    assert "| plain | `stages.a.weights.prose: 1`; `stages.b.weights.prose: 1` |" in text
    assert "| slow | `stages.b.weights.prose: 1`; `stages.a.weights.prose: 1`; `optimizer.lr: 1e-06` |" in text


def test_no_claims() -> None:
    assert "no claims yet" in register([])


def test_what_was_published() -> None:
    common = {"arm": "a", "metric": "m"}
    assert words.published(Expectation(**common, direction="lower", relative=0.048)) == "4.8 % lower"
    assert words.published(Expectation(**common, effect=["better", "no difference"])) == "better or no difference"
    assert words.percent(1.234) == "123 %"
    assert words.percent(0.1) == "10 %"


def test_a_share_of_next_to_nothing_is_not_told() -> None:
    row = {"difference": 0.5, "interval": [0.4, 0.6]}
    assert words.effect({**row, "relative": 0.25}) == "+0.50 (25 % higher)"
    assert words.effect({**row, "relative": 2.7e7}) == words.effect({**row, "relative": None}) == "+0.50"


def test_a_mean_has_the_digits_that_its_spread_allows() -> None:
    assert words.figure({"mean": 3.86301, "sd": 0.0697}) == "3.863 ± 0.070"
    assert words.figure({"mean": 3.86301, "sd": None}) == "3.863"
    assert words.figure(None) == "–"
