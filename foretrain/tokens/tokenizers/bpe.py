"""Byte-pair encoding trained on the corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

from pydantic import Field
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers

from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.tokens.reserved import BYTES, RESERVED, assemble, byte_letters, byte_level
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer


class Bpe(Tokenizer):
    """Byte-level byte-pair encoding, learnt from the training documents of the corpus.

    The same documents give the same tokenizer. It has fewer ids than asked for when the corpus runs out of pairs.
    """

    kind: Literal["bpe"] = "bpe"
    vocabulary: Count = Field(4096, ge=RESERVED + BYTES)
    """Number of ids, the 128 reserved ones and the 256 bytes included."""
    sample: Count = Field(100_000_000, gt=0)
    """It learns from the first this many bytes of text, taken in turn from every domain."""
    frequency: Count = Field(2, ge=1)
    """A pair seen less often than this in the sample is not merged."""
    digits: Literal["grouped", "single"] = "grouped"
    """Whether digits may merge into numbers or each stays a token of its own (which helps arithmetic)."""
    facts: ClassVar[Facts] = Facts(
        paper="Neural Machine Translation of Rare Words with Subword Units",
        arxiv="1508.07909",
        year=2015,
        answers="what is a token? a frequent piece of the corpus",
    )
    trained: ClassVar[bool] = True

    def build(self, texts: Callable[[], Iterator[str]]) -> TextTokenizer:
        splitter = byte_level(use_regex=True)
        if self.digits == "single":
            splitter = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), splitter])
        learner = Engine(models.BPE())
        learner.pre_tokenizer = splitter
        learner.train_from_iterator(
            self._sample(texts()),
            trainers.BpeTrainer(
                vocab_size=self.vocabulary - RESERVED,
                min_frequency=self.frequency,
                initial_alphabet=byte_letters(),
                show_progress=False,
            ),
        )
        merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
        return assemble(merges, splitter)

    def _sample(self, texts: Iterator[str]) -> Iterator[str]:
        left = self.sample
        for text in texts:
            yield text
            left -= len(text.encode())
            if left <= 0:
                return
