"""How much better a model knows the secrets in its training text than secrets like them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import fmean
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.items import Item, LocalTask, Wording, load
from foretrain.tasks.likelihood import encode_pairs, log_likelihoods
from foretrain.tasks.statistics import mean
from foretrain.wording import wording_of


class Exposure(LocalTask):
    """Ranks each canary by its likelihood among random secrets of the same form that no text told.

    The exposure of a canary is log2(n + 1) - log2(rank) bits, where rank is 1 if it is likelier than all n references:
    how many bits of guessing the model saves whoever looks for it. It is at most log2(n + 1), and 1.44 on average where
    the model has not seen the canary. References are the canary with every digit drawn anew.

    Metrics: `exposure`, and `advantage`: by how many nats the canary is likelier than the mean reference (0 where the
    model has not seen it). A rank ends at that of the best and moves by whole places; the advantage sees small changes.
    """

    kind: Literal["exposure"] = "exposure"
    facts: ClassVar[Facts] = Facts(
        paper="The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks",
        arxiv="1802.08232",
        year=2018,
        answers="does the model know secrets by heart that its training text told?",
    )
    measures: ClassVar[Mapping[str, bool] | None] = {"exposure": True, "advantage": True}

    prompt: Wording = "prefix"
    """Field with what stands before the secret, or a template."""
    secret: Wording = "secret"
    """Field with the secret, or a template; its digits are what could be otherwise."""
    references: Count = Field(500, gt=0)
    """Random secrets that each canary is ranked among; canaries of one form share them."""
    references_seed: int = 0
    """Another number draws other references."""

    def make(self, fields: Mapping[str, Any], place: str) -> Item:
        """The item of one record."""
        secret = wording_of(self.secret, fields, place)
        if not any(letter in _DIGITS for letter in secret):
            raise RequestError(f"{place}: the secret ({self.secret}) holds no digit that could be drawn anew.")
        return Item(wording_of(self.prompt, fields, place) + self.separator, secret)

    def items(self) -> list[Item]:
        """Every item, in order."""
        return load(self.path, self.make, self.limit, options=self.options, where=self.where)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        items = self.items()
        before = self.examples(items)
        known = {item.text for item in items}
        groups: dict[tuple[str, str], list[int]] = {}
        for number, item in enumerate(items):
            groups.setdefault((item.given, _form(item.right)), []).append(number)
        exposures, advantages, cut = [0.0] * len(items), [0.0] * len(items), 0
        for (given, form), numbers in groups.items():
            others = [secret for secret in self._drawn(given, form) if given + secret not in known]
            if not others:
                raise RequestError(f"{self.path}: there are no secrets of the form {form!r} but the canaries.")
            texts = [(before + given, secret) for secret in (*(items[n].right for n in numbers), *others)]
            found = log_likelihoods(subject, encode_pairs(subject.tokenizer, texts))
            logs = [one.log for one in found]
            drawn = logs[len(numbers) :]
            for number, log in zip(numbers, logs, strict=False):
                rank = 1 + sum(other >= log for other in drawn)
                exposures[number] = math.log2(len(others) + 1) - math.log2(rank)
                advantages[number] = log - fmean(drawn)
            cut += sum(one.truncated for one in found[: len(numbers)])
        return {
            "exposure": mean(exposures, higher_is_better=True, truncated=cut),
            "advantage": mean(advantages, higher_is_better=True, truncated=cut),
        }

    def _drawn(self, given: str, form: str) -> list[str]:
        """Different secrets of a form, as many as were asked for or a few less."""
        dice = random.Random(seed_from("exposure", self.references_seed, given, form))
        drawn = (
            "".join(_DIGITS[int(dice.random() * 10)] if c == "0" else c for c in form) for _ in range(self.references)
        )
        return list(dict.fromkeys(drawn))


_DIGITS = "0123456789"


def _form(secret: str) -> str:
    """A secret with 0 for each of its digits."""
    return "".join("0" if letter in _DIGITS else letter for letter in secret)
