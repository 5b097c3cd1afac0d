"""Token values on the page: the scale, the letters, the cards; whole, safe and offline, or not there at all."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretrain.pictures import RAW, Drawn, Picture, PictureRow, PictureToken
from foretrain.reports.run_report import run_report, write_report
from foretrain.reports.study_report import study_report
from foretrain.reports.token_values import Piece, limit, pieces, shown, signed
from foretrain.run_directory import RunDirectory
from tests.reports.pages import Page, drawn
from tests.reports.steered import picture, steer, write
from tests.reports.studies import write_study

Make = Callable[..., RunDirectory]
EVIL = "</span></script><script>alert(1)</script><b onmouseover=alert(2)>&\"'"


def one(*tokens: PictureToken, **words: str) -> Picture:
    told = {"title": "t", "caption": "c", "low_label": "low", "high_label": "high", **words}
    return Picture(**told, rows=(PictureRow(words.get("title", "row"), tokens),))


def view(*tokens: PictureToken) -> list[Any]:
    (found,) = shown([Drawn("part", one(*tokens))])
    (row,) = found["rows"]
    return list(row["tokens"])


def test_the_full_colour_is_a_high_quantile_of_the_sizes() -> None:
    values = np.arange(-100, 101) / 1000
    assert limit(values.tolist()) == pytest.approx(0.098)
    assert limit([*values.tolist(), 1e6]) == pytest.approx(0.099), "an outlier does not fade the rest"
    assert limit([0.0, math.nan, math.inf]) == limit([]) == 1.0
    assert limit([0.0] * 999 + [0.5]) == 0.5, "where nearly all are 0, the others are seen"
    assert limit([-0.01234]) == 0.012


def test_sides_and_strengths() -> None:
    tokens = view(*(PictureToken("x", value) for value in [1.0] * 99 + [-0.5, 0.0, -7.0, 0.25]))
    assert [(token.side, token.strength) for token in tokens[98:]] == [
        ("up", 100),
        ("down", 50),
        ("", 0),
        ("down", 100),
        ("up", 25),
    ]
    assert [token.value for token in tokens[98:]] == ["+1.00", "−0.500", "0", "−7.00", "+0.250"]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_token_without_a_value_has_no_colour(value: float | None) -> None:
    first, second = view(PictureToken("a", value), PictureToken("b", 2.0))
    assert (first.side, first.strength, first.value, first.spoken) == ("", 0, "", "a, no value")
    assert second.strength == 100


def test_signed_values() -> None:
    told = {0.0123456: "+0.0123", -4.1e-6: "−4.10e−6", 0.05: "+0.0500", 0.0: "0", 123.0: "+123", -2.5e9: "−2.50e9"}
    assert {value: signed(value) for value in told} == told


def test_letters_that_cannot_be_seen() -> None:
    assert pieces(" the") == [Piece(" the")]
    assert pieces(" the", named=True) == [Piece("␣", True), Piece("the")]
    assert pieces("a\n\n\tb") == [
        Piece("a"),
        Piece("↵", True, "\n"),
        Piece("↵", True, "\n"),
        Piece("⇥", True, "\t"),
        Piece("b"),
    ]
    assert pieces("\n", named=True) == [Piece("↵", True)], "lines do not break in a card"
    codes = {"\x00": "00", "\x1b": "1B", "\x85": "85", "\u202e": "U+202E", "\u200b": "U+200B", "\ud800": "U+D800"}
    assert {text: pieces(text) for text in codes} == {text: [Piece(code, True)] for text, code in codes.items()}
    assert pieces(chr(RAW + 0xC3)) == [Piece("C3", True)], "half a character"
    assert pieces("naïve 東京 é") == [Piece("naïve 東京 é")]
    assert pieces("") == [Piece("")]
    long = pieces("x" * 5000)
    assert len(long) == 2 and len(long[0].text) < 200 and long[1] == Piece("…", True)


def test_the_bars_of_a_target() -> None:
    note = ((" a", 0.55), (" the", 0.3), ("x", 0.05), ("tiny", 0.0004), ("bad", math.nan))
    (token,) = view(PictureToken(" the", 1.0, note))
    assert [(bar.words, bar.percent, bar.own) for bar in token.bars] == [
        ("55 %", 55.0, False),
        ("30 %", 30.0, True),
        ("5.0 %", 5.0, False),
    ]
    assert token.rest == "10 %"
    (whole,) = view(PictureToken("a", 1.0, (("a", 1.0),)))
    assert whole.rest == "" and [bar.words for bar in whole.bars] == ["100 %"]
    (many,) = view(PictureToken("a", 1.0, tuple((str(number), 0.1) for number in range(8))))
    assert len(many.bars) == 6 and many.rest == "40 %"


def test_the_scale_in_numbers() -> None:
    values = [0.01 * step for step in range(-50, 51)] + [9.0]
    (found,) = shown([Drawn("part", one(*(PictureToken("x", value) for value in values)))])
    assert found["ticks"] == ["−0.5", "0", "+0.5"]
    assert found["note"] == "102 tokens; 1 beyond ±0.5 have the full colour too."
    heights = [bar["height"] for bar in found["bins"]]
    assert len(heights) % 2 == 1 and max(heights) == 100 and min(heights) > 0
    sides = [bar["side"] for bar in found["bins"]]
    assert sides == ["down"] * (len(sides) // 2) + [""] + ["up"] * (len(sides) // 2)


def test_what_stands_beside_a_row() -> None:
    tokens = [PictureToken(str(value), value / 4, ((str(value), 0.8), ("z", 0.2))) for value in range(-4, 8)]
    (found,) = shown([Drawn("part", one(*tokens, PictureToken("none", None)))])
    (row,) = found["rows"]
    assert row["facts"] == [("mean value", "+0.375"), ("above 0", "58 % of tokens"), ("target moved by", "20 %")]
    assert [token.named[0].text for token in row["ends"]] == ["7", "6", "-3", "-4"], "the strongest on either side"


@pytest.mark.parametrize("rows", [(), (PictureRow("prose", ()),)])
def test_an_empty_picture_is_left_out(rows: tuple[PictureRow, ...], fake_run: Make) -> None:
    empty = Drawn("part", Picture("t", "c", "low", "high", rows))
    assert shown([empty]) == []
    assert 'id="token-values"' not in run_report(steer(fake_run(steps=20), [empty]))


def test_a_picture_of_nothing_but_gaps(fake_run: Make) -> None:
    html = run_report(
        steer(fake_run(steps=20), [Drawn("part", one(PictureToken("a", None), PictureToken("b", math.nan)))])
    )
    assert "No token here has a value." in Page(html).words


def test_the_section_stands_where_there_are_pictures(fake_run: Make) -> None:
    run = fake_run(steps=40)
    assert "token-values" not in run_report(run).split("</style>")[1].split("<script")[0]
    assert 'id="steering"' not in run_report(run)
    html = run_report(steer(run))
    page = Page(html)
    sections = [found["id"] for tag, found in page.elements if tag == "section"]
    assert sections[:3] == ["curves", "token-values", "steering"]
    tokens = [
        found for tag, found in page.elements if tag == "span" and (found.get("class") or "").split()[:1] == ["token"]
    ]
    rows = picture().rows
    assert len(tokens) == sum(len(row.tokens) for row in rows) > 300
    stops = [token for token in tokens if token["tabindex"] == "0"]
    assert len(stops) == len(rows), "one stop of the tab key a row"
    assert all(token["tabindex"] in ("0", "-1") and "value" in (token["aria-label"] or "") for token in tokens)
    assert "a step towards it raises the feedback loss" in page.words and "Hover over a token" in page.words


def test_the_text_is_there_to_the_letter(fake_run: Make) -> None:
    html = run_report(steer(fake_run(steps=20)))
    bodies = re.findall(r'<div class="tokens"[^>]*>(.*?)</div>', html, re.S)
    texts = []
    for body in bodies:
        # Without the cards and the signs for breaks, what is left is the text and nothing else.
        bare = re.sub(r'<span class="card".*?</span>(?=</span>(?:<span class="token|$))', "", body, flags=re.S)
        bare = re.sub(r'<span class="code">[^<]*</span>', "", bare)
        texts.append(re.sub(r"<[^>]*>", "", bare))
    from html import unescape

    assert [unescape(text) for text in texts] == ["".join(token.text for token in row.tokens) for row in picture().rows]


def test_hostile_text_is_never_markup(fake_run: Make) -> None:
    token = PictureToken(EVIL, 0.5, ((EVIL, 0.7), (f"{EVIL}2", 0.3)), EVIL)
    many = one(*[token] * 9, title=EVIL, caption=EVIL, low_label=EVIL, high_label=EVIL)
    run = steer(fake_run(steps=20), [Drawn("part", many), Drawn(EVIL, None, EVIL)])
    page = Page(run_report(run))
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert not [found for _, found in page.elements if any(name.startswith("on") for name in found)]
    assert page.words.count("alert(1)") > 20, "all of it is shown, as text"
    bold = [found for tag, found in page.elements if tag == "b"]
    assert all(not found for found in bold)


def test_a_part_that_could_not_draw_is_told(fake_run: Make) -> None:
    run = steer(fake_run(steps=20), [Drawn("v_pretraining", None, "ValueError: no paint")])
    assert "The picture of v_pretraining could not be drawn: ValueError: no paint" in Page(run_report(run)).words


def test_nothing_is_loaded_and_the_page_stays_small(fake_run: Make) -> None:
    run = fake_run(steps=40)
    plain, html = run_report(run), run_report(steer(run))
    page = Page(html)
    assert not re.search(r"https?:", html.replace(page.scripts[1], ""))
    assert not [found for _, found in page.elements if {"src", "href", "srcset", "action", "data"} & found.keys()]
    assert "url(" not in html[html.index("<style>") : html.index("</style>")]
    assert len(html) - len(plain) < 1200 * sum(len(row.tokens) for row in picture().rows)


def test_figures_of_steering_parts_have_a_table_and_small_curves(fake_run: Make) -> None:
    run = steer(fake_run(steps=400))
    page = Page(run_report(run))
    names = [f"v_pretraining/{name}" for name in ("alpha", "target_entropy", "cosine", "fallbacks")]
    assert set(names) < set(page.charts) and "Steering: v_pretraining" in page.words
    alpha = run.series("v_pretraining/alpha").values
    row = f"alpha {alpha[-1]:.4f} {alpha.mean():.4f} 50"
    assert row in page.words and "target entropy" in page.words
    norms = run.series("feedback/questions/gradient_norm").values
    assert f"feedback questions · gradient norm {norms[-1]:.3f}" in page.words and "Other figures" in page.words
    assert page.charts.index("feedback/questions/gradient_norm") == page.charts.index("v_pretraining/fallbacks") + 1
    assert len(page.charts) == len(set(page.charts)) == len(page.data["charts"])


def test_figures_of_other_parts_stay_with_the_others(fake_run: Make) -> None:
    run = fake_run(steps=20)
    with open(run.metrics_path, "a") as handle:
        handle.write(json.dumps({"step": 21, "v_pretraining/alpha": 0.5}) + "\n")
    page = Page(run_report(run))
    assert "v_pretraining/alpha" in page.charts and "Steering:" not in page.words and "Other figures" in page.words


def test_on_target_beside_off_target(fake_run: Make) -> None:
    run = fake_run(steps=400)
    assert "On target" not in Page(run_report(run)).words
    run = steer(run)
    page = Page(run_report(run))
    place = page.charts.index("feedback/loss")
    assert page.charts[place : place + 2] == ["feedback/loss", "validation/loss"]
    assert page.data["charts"]["feedback/loss"]["data"][0]["x"] == run.series("feedback/questions/loss").steps.tolist()
    assert len(page.data["charts"]["validation/loss"]["data"]) == 2, "a line for every domain"
    final = run.final()
    assert f"feedback · questions · loss {run.series('feedback/questions/loss').values[0]:.3f}" in page.words
    assert f"{final['feedback/questions/loss']:.3f}" in page.words


def test_one_domain_stands_beside_its_feedback_too(fake_run: Make) -> None:
    page = Page(run_report(steer(fake_run(steps=80, domains=("prose",)))))
    assert {"feedback/loss", "validation/loss"} < set(page.charts)


def test_a_study_shows_the_first_trial_of_each_arm_that_has_pictures(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seeds=3, failed=None)
    assert "token-values" not in study_report(folder).split("</style>")[1].split("<script")[0]
    for seed in (1, 2):
        titled = one(PictureToken("x", 0.5), title=f"seed {seed}")
        write(RunDirectory(folder / f"trials/wsd/seed-{seed}"), [Drawn("part", titled)])
    write(RunDirectory(folder / "trials/soup/seed-0"), [Drawn("part", picture())])
    write(RunDirectory(folder / "trials/plain/seed-0"), [])
    html = study_report(folder)
    page = Page(html)
    section = html[html.index('<section id="token-values"') :].split("</section>")[0]
    assert re.findall(r"<summary>(.*?)</summary>", section) == ["wsd, seed 1", "soup, seed 0"]
    assert section.count("<details>") == 2 and "<details open" not in section
    assert "seed 1" in page.words and section.count('class="token-row"') == 1 + 3, "three rows of each at most"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, to draw the page")
def test_a_browser_shows_the_picture(fake_run: Make, tmp_path: Path) -> None:
    path = write_report(steer(fake_run(steps=200)))
    assert drawn(path, tmp_path).count('class="token-row"') == len(picture().rows)
