"""Pictures of steering parts: what they hold, that they come back as they were, and how the end of a run draws them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from foretrain.batch import Batch
from foretrain.closing import close
from foretrain.drawing import draw, sample, write_pictures
from foretrain.errors import CorruptFile
from foretrain.objectives.base import Targets
from foretrain.pictures import RAW, TOKENS, Drawn, Picture, PictureRow, PictureToken, token_picture, token_text
from foretrain.run_directory import RunDirectory
from foretrain.steering.base import Steering
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.byte import Byte
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer

WORDS: dict[str, Any] = {"title": "t", "caption": "c", "low_label": "low", "high_label": "high"}


class Painter(Steering):
    """Draws each label with its place as its value, and remembers what it was asked on."""

    kind: Literal["test_painter"] = "test_painter"
    asked: list[Any] = []

    def setup(self, context: Any) -> None:
        self.asked.append(context)

    def picture(self, batch: Batch) -> Picture | None:
        context = self.asked[0]
        self.asked.append((batch, context.model.training, torch.is_grad_enabled()))
        values = torch.arange(batch["labels"].shape[1]).expand_as(batch["labels"]) / 10
        return token_picture(batch, values, context.tokenizer, **WORDS)


class Spoiler(Steering):
    """Fails."""

    kind: Literal["test_spoiler"] = "test_spoiler"
    asked: list[Any] = []

    def setup(self, context: Any) -> None:
        self.asked.append(context)

    def picture(self, batch: Batch) -> Picture | None:
        raise ValueError("no paint")


class Shy(Steering):
    """Has nothing to show."""

    kind: Literal["test_shy"] = "test_shy"

    def picture(self, batch: Batch) -> Picture | None:
        return None


def with_parts(*parts: Steering, **changes: Any) -> Trainer:
    trainer = tiny_trainer(**changes)
    for part in parts:
        part.setup(trainer.context)
    trainer.steering = list(parts)
    return trainer


def test_a_picture_comes_back_as_it_was() -> None:
    tokens = (
        PictureToken(" the", 0.25, ((" the", 0.75), (" a", 0.25)), "gate 0.25"),
        PictureToken("\n", None),
        PictureToken("x", -1e-9),
        PictureToken("", 0.0, (), "empty"),
        PictureToken("y", 2.0, (("y", 1.0),)),
    )
    picture = Picture("t", "c", "low", "high", (PictureRow("prose", tokens), PictureRow("none", ())))
    assert Picture.from_plain(json.loads(json.dumps(picture.plain()))) == picture
    for drawn in (Drawn("part", picture), Drawn("part", None, "ValueError: no")):
        assert Drawn.from_plain(json.loads(json.dumps(drawn.plain(), allow_nan=False))) == drawn


def test_values_that_are_not_finite_are_none() -> None:
    for value in (math.nan, math.inf, -math.inf):
        plain = PictureToken("a", value).plain()
        assert plain == ["a", None] and PictureToken.from_plain(plain).value is None


def test_a_picture_of_tensors() -> None:
    tokenizer = Byte().build(lambda: iter(()))
    labels = torch.tensor([tokenizer.encode(["abc"])[0], tokenizer.encode(["xyz"])[0]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    batch = Batch(
        {"labels": labels, "mask": mask, "domain": torch.tensor([1, 0])},
        seed=0,
        step=0,
        positions=torch.arange(2),
        domains=("prose", "sums"),
    )
    values = torch.tensor([[0.5, -0.123456789, 9.0], [9.0, 0.0, 2.0]])
    # The candidates of every token: the token itself and two others, the last with nothing.
    ids = torch.stack([labels, labels + 1, labels + 2], dim=-1)
    targets = Targets(ids, torch.tensor([0.25, 0.75, 0.0]).expand(2, 3, 3))
    details = [["one", "two", "three"], ["four", "five", "six"]]
    picture = token_picture(batch, values, tokenizer, **WORDS, targets=targets, details=details)
    first, second = picture.rows
    assert (first.title, second.title) == ("sums", "prose")
    assert [token.text for token in first.tokens] == ["a", "b", "c"]
    assert [token.value for token in first.tokens] == [0.5, -0.123457, None], (
        "six digits; nothing where the mask is off"
    )
    assert first.tokens[0].note == (("b", 0.75), ("a", 0.25)), "the most likely first, without what has nothing"
    assert first.tokens[2] == PictureToken("c", None)
    assert [token.detail for token in second.tokens] == ["", "five", "six"]


def test_long_rows_are_cut() -> None:
    tokenizer = Byte().build(lambda: iter(()))
    labels = torch.full((1, TOKENS + 5), tokenizer.encode(["a"])[0][0])
    tensors = {"labels": labels, "mask": torch.ones_like(labels), "domain": torch.zeros(1, dtype=torch.int64)}
    batch = Batch(tensors, seed=0, step=0, positions=torch.zeros(1, dtype=torch.int64), domains=("prose",))
    (row,) = token_picture(batch, torch.zeros(labels.shape), tokenizer, **WORDS).rows
    assert len(row.tokens) == TOKENS


def test_the_text_of_single_tokens() -> None:
    tokenizer = Byte().build(lambda: iter(()))
    ids = tokenizer.encode(["é a"])[0]
    assert [token_text(tokenizer, token) for token in ids] == [chr(RAW + 0xC3), chr(RAW + 0xA9), " ", "a"]


def _word_tokenizer(decoder: Any, words: list[str]) -> TextTokenizer:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    backend.decoder = decoder
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_tokenizer_that_drops_the_first_space() -> None:
    from tokenizers import decoders

    pieces = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")])
    tokenizer = _word_tokenizer(pieces, ["▁the", "x", "<0xC3>"])
    assert tokenizer.decode([0]) == "the"
    assert [token_text(tokenizer, token) for token in range(3)] == [" the", "x", chr(RAW + 0xC3)]


def test_the_rows_are_a_pure_choice_and_show_every_domain_first() -> None:
    validation = tiny_trainer().validation
    first, again, other = (sample(validation, seed) for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert torch.equal(first["tokens"], again["tokens"]) and not torch.equal(first["tokens"], other["tokens"])
    assert first["domain"].tolist() == [0, 1, 0, 1, 0, 1], "in turn, the heavier domain first"
    assert first.domains == ("prose", "sums") and first["tokens"].shape == (6, validation.window)
    for number, name in enumerate(first.domains):
        held = next(iter(validation.sets[name].windows(validation.window, validation.stride, rows=100)))["tokens"]
        mine = first.take(first["domain"] == number)
        assert torch.equal(mine["tokens"], held[mine.positions]), "windows of the validation split, at their places"
        assert len(set(mine.positions.tolist())) == 3


def test_the_end_of_a_run_draws(tmp_path: Path) -> None:
    painter, directory = Painter(asked=[]), RunDirectory(tmp_path)
    trainer = with_parts(Shy(), painter, precision="bf16")
    before = {name: weight.clone() for name, weight in trainer.learner.masters.items()}
    close(trainer, directory, "figures", 1.0, {})
    ((batch, training, gradients),) = painter.asked[1:]
    assert "labels" in batch and not training and gradients, "prepared rows, eval mode, free to take gradients"
    (drawn,) = directory.pictures()
    assert drawn.part == "test_painter" and drawn.picture is not None
    assert {row.title for row in drawn.picture.rows} == {"prose", "sums"}
    text = "".join(token.text for token in drawn.picture.rows[0].tokens)
    assert text == trainer.context.tokenizer.decode(batch["labels"][0].tolist())
    assert directory.result() is not None
    assert all(torch.equal(before[name], weight) for name, weight in trainer.learner.masters.items())
    assert trainer.learner.model.training and trainer.learner.precision == "bf16"


def test_pictures_are_of_exact_weights(tmp_path: Path) -> None:
    class Looker(Painter):
        """Remembers what the model computes with."""

        kind: Literal["test_looker"] = "test_looker"  # type: ignore[assignment]

        def picture(self, batch: Batch) -> Picture | None:
            self.asked.append({parameter.dtype for parameter in self.asked[0].model.parameters()})
            return None

    looker = Looker(asked=[])
    trainer = with_parts(looker, precision="bf16")
    close(trainer, RunDirectory(tmp_path), "figures", 1.0, {})
    assert looker.asked[1] == {torch.float32}


def test_a_part_that_cannot_draw_costs_nothing_else(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    trainer = with_parts(Spoiler(asked=[]), Painter(asked=[]))
    close(trainer, directory, "figures", 1.0, {})
    failed, painted = directory.pictures()
    assert failed == Drawn("test_spoiler", None, "ValueError: no paint") and painted.picture is not None
    assert (directory.result() or {})["status"] == "done"
    (warning,) = trainer.warnings
    assert "test_spoiler" in warning and "no paint" in warning


def test_an_interrupt_while_drawing_is_one() -> None:
    class Stopped(Spoiler):
        """Is interrupted."""

        kind: Literal["test_stopped"] = "test_stopped"  # type: ignore[assignment]

        def picture(self, batch: Batch) -> Picture | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(with_parts(Stopped(asked=[])))


def test_without_pictures_there_is_no_file(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert directory.pictures() == []
    write_pictures(directory, [Drawn("part", None, "why")])
    assert directory.pictures_path.is_file()
    assert draw(tiny_trainer()) == []
    write_pictures(directory, [])
    assert not directory.pictures_path.exists(), "what an earlier end drew is gone"
    write_pictures(directory, [Drawn("part", None, "why")])
    directory.clear()
    assert not directory.pictures_path.exists()


def test_nothing_held_out_nothing_drawn() -> None:
    corpus = {"prose": {"path": "builtin:biographies", "options": {"people": 50}, "validation": 0}}
    painter = Painter(asked=[])
    assert draw(with_parts(painter, corpus=corpus)) == [] and len(painter.asked) == 1


@pytest.mark.parametrize(
    "content", ["{", '{"a": 1}', '["x"]', '[{"part": "p"}]', '[{"part": "p", "picture": {}}]', "[1]"]
)
def test_a_file_that_is_something_else(tmp_path: Path, content: str) -> None:
    run = RunDirectory(tmp_path)
    run.pictures_path.write_text(content)
    with pytest.raises(CorruptFile, match=r"pictures\.json"):
        run.pictures()
