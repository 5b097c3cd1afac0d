"""Quality filters: each rule drops what it says, by its own field; null switches it off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.curation.steps.fineweb_quality import FinewebQuality
from foretrain.curation.steps.gopher_quality import GopherQuality
from foretrain.curation.steps.gopher_repetition import GopherRepetition
from foretrain.errors import RequestError
from tests.curation.stages import sifted

PROSE = (
    "The old bridge was built of stone that came from the hills, and it has stood with little repair ever since.\n"
    "People of the town say that to cross it at night is to be in the company of those who laid it.\n"
    "Whether or not one believes them, the view of the river from the middle arch is worth the walk.\n"
)
RULES = "fewest_words most_words shortest_mean longest_mean symbols bullets ellipses alphabetic stop_words"
OPEN: dict[str, Any] = dict.fromkeys(RULES.split())


@pytest.mark.parametrize(
    ("field", "value", "text", "reason"),
    [
        ("fewest_words", 10, "only three words", "short doc"),
        ("most_words", 40, PROSE, "long doc"),
        ("shortest_mean", 3, "a b c d e f g of to", "below avg threshold"),
        ("longest_mean", 6, "incomprehensible characterisations", "above avg threshold"),
        ("symbols", 0.1, "# # # one two three", "too many hashes"),
        ("symbols", 0.1, "one ... two ... three", "too many ellipsis"),
        ("bullets", 0.9, "- one\n- two\n- three", "too many bullets"),
        ("ellipses", 0.3, "one ...\ntwo more", "too many end ellipsis"),
        ("alphabetic", 0.8, "1 2 3 four 5", "below alpha threshold"),
        ("stop_words", 2, "the river runs", "enough stop words"),
    ],
)
def test_each_rule_of_gopher(field: str, value: Any, text: str, reason: str, tmp_path: Path) -> None:
    only = GopherQuality(**{**OPEN, field: value})
    left, counts = sifted(only, tmp_path / "on", text)
    assert (left, counts.dropped) == ([], {reason: 1})
    left, _ = sifted(GopherQuality(**OPEN), tmp_path / "off", text)
    assert len(left) == 1, "with every rule off, everything stays"


def test_prose_passes_all_filters(tmp_path: Path) -> None:
    for number, step in enumerate((GopherQuality(), GopherRepetition(), FinewebQuality())):
        left, counts = sifted(step, tmp_path / str(number), PROSE)
        assert len(left) == 1, counts.dropped


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("lines", "one line\none line\none line\nanother one\n", "dup line frac"),
        ("paragraphs", "a para\n\na para\n\na para\n\nmore", "dup para frac"),
        ("line_letters", "a very long line that comes again\n" * 2 + "x\ny\nz\nw\nv", "dup line char frac"),
        ("most_common", "buy now buy now buy now buy now or later", "top 2 gram"),
        ("repeated", "one two three four five six one two three four five six seven", "duplicated 5 n grams"),
    ],
)
def test_each_rule_of_repetition(field: str, text: str, reason: str, tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        **dict.fromkeys(("lines", "paragraphs", "line_letters", "paragraph_letters"), None),
        "most_common": {},
        "repeated": {},
    }
    usual = GopherRepetition.model_fields[field].default
    left, counts = sifted(GopherRepetition(**{**nothing, field: usual}), tmp_path / "on", text)
    assert (left, counts.dropped) == ([], {reason: 1})
    assert len(sifted(GopherRepetition(**nothing), tmp_path / "off", text)[0]) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Home\nAbout us\nContact\nImprint and more of it", "line punct ratio"),
        ("Yes.\nNo.\nPerhaps.", "short line ratio"),
        ("This line is long enough to be one, and it ends.\n" * 2, "char dup ratio"),
    ],
)
def test_rules_of_fineweb(text: str, reason: str, tmp_path: Path) -> None:
    left, counts = sifted(FinewebQuality(), tmp_path, text)
    assert (left, counts.dropped) == ([], {reason: 1})


def test_a_language_that_cannot_be_split_into_words_is_refused() -> None:
    with pytest.raises(RequestError, match="splits no language 'klingon'"):
        GopherQuality(language="klingon").check()


def test_signs_alone_are_no_fault(tmp_path: Path) -> None:
    for number, step in enumerate((GopherQuality(), GopherRepetition(), FinewebQuality())):
        _, counts = sifted(step, tmp_path / str(number), "?", "\u200b", "…", "\n\nx")
        assert counts.documents == 4
