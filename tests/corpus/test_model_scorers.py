"""Scores by named models: losses against a plain loop, read once, resumed, charged, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from foretrain import flops
from foretrain.corpus.document import Document
from foretrain.corpus.scorers import _losses as module
from foretrain.corpus.scorers._by_models import ByModels
from foretrain.corpus.scorers._losses import Losses, Reader
from foretrain.corpus.scorers.miniplm import MiniPLM
from foretrain.corpus.scorers.model_loss import ModelLoss
from foretrain.errors import CorruptFile, RequestError
from foretrain.hashing import hash_data
from foretrain.models.bert import Bert
from foretrain.named_models import NamedModel
from foretrain.studies.conducting import conduct
from tests.steering.teachers import save_teacher
from tests.studies.tiny_study import tiny_study
from tests.tiny import CONTEXT, tiny_plan, tiny_trainer

TEXTS = ["a short one", "Zwölf Boxkämpfer jagen Viktor. " * 4, "x", "the sum of 3 and 4 is 7. " * 9, "a short one"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("models")
    return {
        "teacher": save_teacher(home / "teacher", steps=30),
        "reference": save_teacher(home / "reference", steps=4, seed=8),
        "pieces": save_teacher(home / "pieces", steps=2, tokenizer={"kind": "bpe", "vocabulary": 500}),
    }


@pytest.fixture
def models(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, NamedModel]:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
    return {name: NamedModel(path=path) for name, path in folders.items()}


def _documents(texts: Sequence[str] = TEXTS) -> list[Document]:
    return [Document(str(place), text, "test") for place, text in enumerate(texts)]


def _scores(part: ByModels, models: Mapping[str, NamedModel], texts: Sequence[str] = TEXTS) -> list[float]:
    part.setup(models)
    return list(part.scores(_documents(texts)))


def _one_by_one(folder: str, text: str, window: int) -> list[float]:
    """The loss of each token by the model alone, one window after the other."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    found: list[float] = []
    for start in range(0, len(ids) - 1, window):
        piece = torch.tensor([ids[start : start + window + 1]])
        with torch.no_grad():
            logits = model(input_ids=piece[:, :-1]).logits[0]
        found += nn.functional.cross_entropy(logits, piece[0, 1:], reduction="none").tolist()
    return found


@pytest.mark.parametrize(("name", "window"), [*product(["teacher", "pieces"], [None, 7])])
def test_losses_are_those_of_a_plain_loop(
    models: dict[str, NamedModel], folders: dict[str, str], name: str, window: int | None
) -> None:
    found = Reader(name, models[name], window, "fp32").losses(TEXTS)
    for text, losses in zip(TEXTS, found, strict=True):
        wanted = _one_by_one(folders[name], text, window or CONTEXT)
        assert losses.nats.tolist() == pytest.approx(wanted, abs=2e-5)
        assert (losses.characters, losses.bytes) == (len(text), len(text.encode()))
    assert found[1].bytes > found[1].characters


def test_windows_are_batched_as_they_are_read_alone(
    models: dict[str, NamedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Reader("teacher", models["teacher"], 16, "fp32").losses(TEXTS)
    monkeypatch.setattr(module, "ROWS_OF", 1)
    monkeypatch.setattr(module, "FORMAT", "apart")
    for one, other in zip(together, Reader("teacher", models["teacher"], 16, "fp32").losses(TEXTS), strict=True):
        np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)


def test_bf16_is_near(models: dict[str, NamedModel]) -> None:
    exact, near = (_scores(ModelLoss(model="teacher", precision=kind), models) for kind in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert near == pytest.approx(exact, rel=0.02) and near != exact


@pytest.mark.parametrize("unit", ["token", "character", "byte"])
def test_a_loss_is_a_mean(models: dict[str, NamedModel], folders: dict[str, str], unit: Any) -> None:
    found = _scores(ModelLoss(model="pieces", unit=unit), models)
    for text, score in zip(TEXTS, found, strict=True):
        nats = _one_by_one(folders["pieces"], text, CONTEXT)
        over = {"token": len(nats), "character": len(text), "byte": len(text.encode())}[unit]
        assert score == pytest.approx(sum(nats) / over, abs=2e-5)


def test_difference_sampling_is_the_reference_less_the_teacher(models: dict[str, NamedModel]) -> None:
    found = _scores(MiniPLM(), models)
    teacher, reference = (_scores(ModelLoss(model=name), models) for name in ("teacher", "reference"))
    assert found == pytest.approx([b - a for a, b in zip(teacher, reference, strict=True)], abs=1e-9)
    assert found[3] > 0.1, "the teacher has seen more sums"
    assert _scores(MiniPLM(reference="teacher"), models) == [0.0] * len(TEXTS)


def test_models_of_other_tokenizers_compare_by_character(models: dict[str, NamedModel]) -> None:
    with pytest.raises(RequestError, match=r"score: models\.teacher and models\.pieces have different tokenizers"):
        _scores(MiniPLM(reference="pieces"), models)
    found = _scores(MiniPLM(reference="pieces", unit="character"), models)
    one, other = (_scores(ModelLoss(model=name, unit="character"), models) for name in ("pieces", "teacher"))
    assert found == pytest.approx([a - b for a, b in zip(one, other, strict=True)], abs=1e-9)


def test_an_ensemble_is_the_mean_of_logits(models: dict[str, NamedModel], folders: dict[str, str]) -> None:
    paths = [folders["teacher"], folders["reference"]]
    both = Reader("both", NamedModel(path=paths), None, "fp32").losses(["a short one"])[0].nats
    members = [AutoModelForCausalLM.from_pretrained(path) for path in paths]
    tokenizer = AutoTokenizer.from_pretrained(paths[0])
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer("a short one", add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        logits = sum(model(input_ids=ids[:, :-1]).logits for model in members) / 2
    wanted = nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="none")
    np.testing.assert_allclose(both, wanted.numpy(), atol=2e-5)


class Surprises(ByModels):
    """The most surprising token under any of the ladder: a scorer as others may write one."""

    kind: str = "surprises"  # type: ignore[assignment]
    ladder: list[str] = []

    def names(self) -> Sequence[str]:
        return self.ladder

    def score(self, losses: Sequence[Losses]) -> float:
        return max(float(each.nats.max()) for each in losses)


def test_a_scorer_of_a_ladder_is_a_short_class(models: dict[str, NamedModel], folders: dict[str, str]) -> None:
    found = _scores(Surprises(ladder=["teacher", "reference", "pieces"]), models)
    wanted = [max(max(_one_by_one(path, text, CONTEXT)) for path in folders.values()) for text in TEXTS]
    assert found == pytest.approx(wanted, abs=2e-5)


# Read once ------------------------------------------------------------------------------------------------------------


def _counted_readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    original = module._Opened.read

    def read(self: Any, texts: Sequence[str]) -> Any:
        made.append(len(texts))
        return original(self, texts)

    monkeypatch.setattr(module._Opened, "read", read)
    return made


def test_a_model_reads_a_text_once(models: dict[str, NamedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    made = _counted_readings(monkeypatch)
    first = _scores(part := ModelLoss(model="teacher"), models)
    assert made == [len(set(TEXTS))] and first[0] == first[4], "copies are read once"
    backwards = _scores(again := ModelLoss(model="teacher", unit="token"), models, TEXTS[::-1])
    assert backwards[::-1] == first and len(made) == 1
    assert again.flops() == part.flops() > 0, "what was found made is charged too"
    _scores(MiniPLM(), models)
    assert len(made) == 2, "only the reference had something to read"
    _scores(ModelLoss(model="teacher", window=8), models)
    assert len(made) == 3, "another window gives other losses"


def test_a_reading_that_was_killed_goes_on(models: dict[str, NamedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 40)
    made = _counted_readings(monkeypatch)
    part = ModelLoss(model="teacher")
    part.setup(models)
    scores = part.scores(_documents())
    begun = [next(scores), next(scores), next(scores)]
    assert len(made) == 2
    del scores
    whole = _scores(ModelLoss(model="teacher"), models)
    assert whole[:3] == begun and len(made) == 3, "pieces that were whole are found"
    monkeypatch.setattr(module, "PIECE", 1 << 22)
    assert _scores(ModelLoss(model="teacher"), models) == pytest.approx(whole, abs=1e-5)


def test_flops_are_those_of_the_forward_passes(models: dict[str, NamedModel], folders: dict[str, str]) -> None:
    part = ModelLoss(model="teacher")
    _scores(part, models, ["y" * CONTEXT])
    model = AutoModelForCausalLM.from_pretrained(folders["teacher"])
    assert part.flops() == pytest.approx(flops.analytic(model, 1, CONTEXT), rel=0.01)


def test_content_is_that_of_the_models(models: dict[str, NamedModel], folders: dict[str, str], tmp_path: Path) -> None:
    def content(part: ByModels, named: Mapping[str, NamedModel]) -> str:
        part.setup(named)
        return hash_data(part.content())

    plain = content(MiniPLM(), models)
    (tmp_path / "copy").symlink_to(folders["teacher"])
    assert content(MiniPLM(), {**models, "teacher": NamedModel(path=str(tmp_path / "copy"))}) == plain
    others = [
        content(MiniPLM(), {**models, "teacher": models["reference"]}),
        content(MiniPLM(unit="byte"), models),
        content(MiniPLM(window=8), models),
    ]
    assert len({plain, *others}) == 4


# What is refused ------------------------------------------------------------------------------------------------------


def test_unknown_models_are_refused_before_anything_is_read(models: dict[str, NamedModel]) -> None:
    with pytest.raises(RequestError, match="did you mean 'teacher'"):
        ModelLoss(model="teachr").setup(models)
    with pytest.raises(RequestError, match=r"corpus\.prose\.score: there is no model 'teacher'"):
        corpus = {"prose": {"path": "builtin:biographies", "score": "miniplm"}}
        tiny_plan(corpus=corpus)


def test_models_that_cannot_score_are_refused(models: dict[str, NamedModel], tmp_path: Path) -> None:
    tokenizer = tiny_trainer().context.tokenizer
    part = Bert(layers=1, width=16, heads=1, context=16)
    special: dict[str, int | None] = {"bos": 0, "eos": 0, "pad": 1, "mask": 2}
    part.build(part.config(tokenizer.vocabulary, special), 0).save_pretrained(tmp_path / "bert")
    tokenizer.save(tmp_path / "bert")
    with pytest.raises(RequestError, match=r"models\.bert: .* is no decoder"):
        Reader("bert", NamedModel(path=str(tmp_path / "bert")), None, "fp32").losses(["x"])
    with pytest.raises(RequestError, match="reads 32 tokens at once, and `window` asks for 64"):
        Reader("teacher", models["teacher"], 64, "fp32").losses(["x"])
    with pytest.raises(RequestError, match="list of paths is empty"):
        Reader("none", NamedModel(path=[]), None, "fp32").losses(["x"])
    both = NamedModel(path=[*models["teacher"].paths, *models["pieces"].paths])
    with pytest.raises(RequestError, match="2 different tokenizers"):
        Reader("both", both, None, "fp32").losses(["x"])
    with pytest.raises(RequestError, match=r"models\.far: .*no folder"):
        Reader("far", NamedModel(path="./nowhere/at/all"), None, "fp32").losses(["x"])


def test_damaged_losses_are_told(models: dict[str, NamedModel], tmp_path: Path) -> None:
    _scores(ModelLoss(model="teacher"), models)
    file = next((tmp_path / "cache" / "losses").glob("*/losses.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptFile, match="Delete that folder"):
        _scores(ModelLoss(model="teacher"), models)


# In runs and studies --------------------------------------------------------------------------------------------------


def _domain(**changes: Any) -> dict[str, Any]:
    return {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2, "steer": 0.1, **changes}


def test_a_run_keeps_what_the_teacher_likes_better(models: dict[str, NamedModel], folders: dict[str, str]) -> None:
    named = {name: folders[name] for name in ("teacher", "reference")}
    keep = {"share": 0.5, "best": "highest"}
    plan = tiny_plan(models=named, corpus={"prose": _domain(score="miniplm", keep=keep)})
    report = plan.prepared.reports["prose"]
    assert report["kept scores"]["lowest"] >= report["scores"]["median"] - 1e-9
    assert report["scoring_flops"] > 0
    again = tiny_plan(models=named, corpus={"prose": _domain(score="miniplm", keep=keep)})
    assert again.prepared.reports == plan.prepared.reports
    assert (
        plan.hashes["scores"]
        != tiny_plan(
            models={**named, "teacher": folders["reference"]}, corpus={"prose": _domain(score="miniplm")}
        ).hashes["scores"]
    )


def test_a_study_charges_scoring_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By products of the study itself; the baseline has the product, too, and pays for no scoring."""
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
    score = {"kind": "model_loss", "model": "teacher"}
    arms = {
        "all": {"models.teacher": "product:teacher"},
        "lowest": {
            "models.teacher": "product:teacher",
            "corpus.prose.score": score,
            "corpus.prose.keep": {"share": 0.5, "best": "lowest"},
        },
    }
    base = {**tiny_study().base, "budget": {"steps": 2}}
    study = tiny_study(base=base, arms=arms, products={"teacher": {}}, seeds=1)
    found = conduct(study, tmp_path / "a", report=False)
    assert not any(arm["failed"] for arm in found["arms"].values())
    assert found["arms"]["all"]["one_off_flops"] == 0
    plan = tiny_plan(
        models={"teacher": str(next((tmp_path / "cache" / "products").iterdir()))},
        corpus={"prose": _domain(score=score)},
    )
    assert found["arms"]["lowest"]["one_off_flops"] == plan.prepared.reports["prose"]["scoring_flops"]
    assert found["arms"]["all-given-lowest"]["steps"] > found["arms"]["all"]["steps"]
