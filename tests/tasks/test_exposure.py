"""Exposure: the rank among secrets of the same form, against a subject whose likelihoods are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretrain.errors import RequestError
from foretrain.tasks.exposure import Exposure
from tests.tasks.subjects import byte_tokenizer, subject, write_items


class Knows:
    """A subject that finds digits the likelier the nearer they are to a favourite one, wherever they stand."""

    tokenizer = byte_tokenizer()
    context = 64
    causal = True
    batch_tokens = 4096

    def __init__(self, favourite: str) -> None:
        digits = [self.tokenizer.encode([letter])[0][0] for letter in "0123456789"]
        self.row = torch.zeros(self.tokenizer.vocabulary)
        for digit, token in enumerate(digits):
            self.row[token] = -abs(digit - int(favourite))

    def cache(self) -> None:
        return None

    def logits(
        self, ids: Tensor, mask: Tensor | None = None, cache: None = None, places: Tensor | None = None
    ) -> Tensor:
        shape = ids.shape if places is None else (int(places.sum()),)
        return self.row.expand(*shape, -1)

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        raise NotImplementedError


def task(folder: Path, secrets: list[str], **settings: object) -> Exposure:
    items = [{"prefix": "It is", "secret": secret} for secret in secrets]
    return Exposure.model_validate({"path": write_items(folder / "c.jsonl", items), **settings})


def test_it_is_the_rank_among_all_others_in_bits(tmp_path: Path) -> None:
    """With enough references of one digit, all other digits are there, once each: ranks are known."""
    measured = task(tmp_path, ["0", "4", "9"], references=500).evaluate(Knows("0"), 0)
    found = measured["exposure"]
    others = [1, 2, 3, 5, 6, 7, 8]
    ranks = [1 + sum(other <= canary for other in others) for canary in (0, 4, 9)]
    assert ranks == [1, 4, 8]
    assert found.values == pytest.approx([math.log2(8) - math.log2(rank) for rank in ranks])
    assert found.value == pytest.approx(sum(found.values) / 3) and found.higher_is_better
    # A digit d has the log-likelihood -d and a constant: that of the others is -32/7 on average.
    assert measured["advantage"].values == pytest.approx([32 / 7 - canary for canary in (0, 4, 9)], abs=1e-4)
    assert measured["advantage"].higher_is_better


def test_a_secret_that_is_not_known_has_little(tmp_path: Path) -> None:
    secrets = [f"{i * 7919 % 1000:03d} {i * 104729 % 1000:03d}" for i in range(1, 61)]
    found = task(tmp_path, secrets, references=400).evaluate(subject(), 0)["exposure"]
    assert found.items == 60 and found.value == pytest.approx(1 / math.log(2), abs=0.6)
    known = task(tmp_path, ["555 555", "123 999"], references=400).evaluate(Knows("5"), 0)["exposure"]
    assert known.values[0] == pytest.approx(math.log2(401), abs=0.01) and known.values[1] < 5


def test_likelihoods_are_those_of_the_whole_secret(tmp_path: Path) -> None:
    """Against a plain loop over one canary and its references."""
    one = subject()
    wanted = task(tmp_path, ["12-34"], references=30)
    found = wanted.evaluate(one, 0)["exposure"].value

    def loss(secret: str) -> float:
        ids = torch.tensor([one.tokenizer.encode([f"It is {secret}"])[0]])
        start = len(one.tokenizer.encode(["It is"])[0])
        with torch.no_grad():
            logits = one.model.eval()(input_ids=ids).logits
        return float(functional.cross_entropy(logits[0, start - 1 : -1], ids[0, start:], reduction="sum"))

    others = wanted._drawn("It is ", "00-00")
    assert len(others) == len(set(others)) > 25 and all(len(other) == 5 and other[2] == "-" for other in others)
    rank = 1 + sum(loss(other) <= loss("12-34") for other in others)
    assert found == pytest.approx(math.log2(len(others) + 1) - math.log2(rank))


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"item 1: the secret .* holds no digit"):
        task(tmp_path, ["none"]).check()
    with pytest.raises(RequestError, match="no secrets of the form '0' but the canaries"):
        task(tmp_path, list("0123456789")).evaluate(Knows("0"), 0)
