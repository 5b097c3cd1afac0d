"""Language: known by samples at hand or by a fastText model, never by anything that is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretrain.curation.build_file import make_build
from foretrain.curation.steps.language import STRETCH, Language
from foretrain.errors import RequestError
from tests.curation.stages import sifted
from tests.tasks.subjects import write_items

TEXTS = {
    "de": "Die alte Brücke wurde aus Stein gebaut, der von den Hügeln kam, und sie hat seitdem ohne Schaden gestanden. "
    "Die Leute aus der Stadt sagen, dass man nachts nicht allein hinübergeht, weil die Erbauer noch immer wachen. ",
    "fr": "Le vieux pont a été construit avec des pierres venues des collines, et il est resté debout depuis ce temps. "
    "Les gens de la ville disent que celui qui le traverse la nuit n'est jamais seul, car les bâtisseurs veillent. ",
    "en": "The old bridge was built of stone that came from the hills, and it has stood with little repair ever since. "
    "People of the town say that to cross it at night is to be in the company of those who once laid it down. ",
}
NEW = {
    "de": "Am Morgen ging der Mann mit seiner Tochter über die Straße, um das Brot und die Milch für alle zu holen.",
    "fr": "Le matin, l'homme est sorti avec sa fille dans la rue pour acheter le pain et le lait de toute la famille.",
    "en": "In the morning the man went out into the street with his daughter to fetch bread and milk for all of them.",
}


@pytest.fixture
def labelled(tmp_path: Path) -> dict[str, Any]:
    path = write_items(tmp_path / "labelled.jsonl", [{"text": text, "lang": name} for name, text in TEXTS.items()])
    return {name: {"path": path, "where": {"lang": name}} for name in TEXTS}


def test_documents_of_the_languages_that_are_kept_stay(labelled: dict[str, Any], tmp_path: Path) -> None:
    step = Language(keep=["de", "en"], samples=labelled)
    left, counts = sifted(step, tmp_path / "run", *NEW.values())
    assert [document.metadata["language"] for document in left] == ["de", "en"]
    assert [document.id for document in left] == ["0", "2"]
    assert all(0.5 <= document.scores["language"] <= 1 for document in left)
    assert counts.dropped == {"language fr": 1}


def test_how_sure_it_is_is_the_share_of_stretches(labelled: dict[str, Any], tmp_path: Path) -> None:
    # Three stretches of German and one of French, cut where stretches are.
    parts = [(TEXTS["de"] * 2).encode()[: 3 * STRETCH], TEXTS["fr"].encode()[:STRETCH]]
    mixed = b"".join(parts).decode(errors="ignore")
    left, _ = sifted(Language(keep=["de"], samples=labelled), tmp_path / "low", mixed)
    assert left[0].scores["language"] == pytest.approx(0.75, abs=0.01)
    left, counts = sifted(Language(keep=["de"], samples=labelled, threshold=0.8), tmp_path / "high", mixed)
    assert (left, counts.dropped) == ([], {"language de, but not sure": 1})


def test_the_model_decides_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def get_labels(self) -> list[str]:
            return ["__label__deu_Latn", "__label__eng_Latn"]

        def predict(self, text: str) -> tuple[tuple[str, ...], list[float]]:
            assert "\n" not in text, "fastText takes a line"
            return ("__label__deu_Latn",) if "ü" in text else ("__label__eng_Latn",), [1.00002]

    monkeypatch.setitem(sys.modules, "fasttext", SimpleNamespace(load_model=lambda path: Model()))
    (tmp_path / "lid.bin").write_bytes(b"weights")
    step = Language(keep=["deu_Latn"], model=str(tmp_path / "lid.bin"))
    left, counts = sifted(step, tmp_path / "run", "über\nalles", "over all")
    assert [document.scores["language"] for document in left] == [1.0]
    assert counts.dropped == {"language eng_Latn": 1}
    with pytest.raises(RequestError, match="no label 'deu_Lat'; did you mean 'deu_Latn'"):
        Language(keep=["deu_Lat"], model=str(tmp_path / "lid.bin")).check()
    before = step.content()
    (tmp_path / "lid.bin").write_bytes(b"other weights")
    assert step.content() != before, "another model is another step"


def test_a_missing_model_or_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="nothing is downloaded"):
        Language(keep=["de"], model=str(tmp_path / "none.bin")).check()
    monkeypatch.setitem(sys.modules, "fasttext", None)
    (tmp_path / "lid.bin").write_bytes(b"weights")
    with pytest.raises(RequestError, match="needs the package 'fasttext'"):
        Language(keep=["de"], model=str(tmp_path / "lid.bin")).check()


def test_a_language_without_a_sample_is_refused() -> None:
    with pytest.raises(RequestError, match="no sample of language 'englisch'; did you mean 'english'"):
        make_build({"read": "x.txt", "steps": [{"kind": "language", "keep": ["englisch"]}]})
