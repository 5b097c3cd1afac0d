"""Whether what the model writes after a prompt is the right answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from foretrain.errors import RequestError
from foretrain.generation import generate
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.items import Item, LocalTask, Wording, load
from foretrain.tasks.statistics import proportion
from foretrain.wording import as_text, is_template, look_up, wording_of

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")


def _check_regex(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"should be a regular expression, but {error}") from error
    if groups > 1:
        raise ValueError(
            "should hold at most one pair of capturing brackets, around the answer; use (?:...) for others"
        )
    return text


@dataclass(frozen=True, slots=True)
class Problem(Item):
    """An item with every answer that counts as right, as they are compared."""

    accepted: tuple[str, ...]


class ExactMatch(LocalTask):
    """Continues each prompt greedily and compares with the answer.

    Both the continuation and the answer are normalised: `extract` takes a part of them, `number` the last number, and
    white space at the ends is dropped and elsewhere becomes single spaces. A continuation with nothing to extract is
    wrong.

    Metrics: `exact_match`.
    """

    kind: Literal["exact_match"] = "exact_match"
    facts: ClassVar[Facts] = Facts(answers="does the model write the right answer?")
    measures: ClassVar[Mapping[str, bool] | None] = {"exact_match": True}

    prompt: Wording = "question"
    """Field with what is given, or a template such as `Question: {question}\\nAnswer:`."""
    answer: Wording = "answer"
    """Field with the answer (or a list of answers, any of which is right), or a template."""
    tokens: Count = Field(64, gt=0)
    """Most tokens to write for each prompt."""
    stop: list[Annotated[str, Field(min_length=1)]] = ["\n"]
    """Texts that end a continuation (the end-of-text token always does)."""
    extract: Annotated[str, AfterValidator(_check_regex)] | None = None
    """A regular expression, such as `#### (.+)`: its last match (the part in brackets) is what is compared."""
    number: bool = False
    """Compare the last number in each, by its value: `1,200` is `1200.0`."""
    ignore_case: bool = False
    """Whether capitals count as small letters."""

    def make(self, fields: Mapping[str, Any], place: str) -> Problem:
        """The item of one record."""
        answers = self._answers(fields, place)
        accepted = []
        for answer in answers:
            normal = self.normalise(answer)
            if not normal:
                raise RequestError(
                    f"{place}: the answer {answer[-80:]!r} has nothing in it to compare {self._sought()}."
                )
            accepted.append(normal)
        given = wording_of(self.prompt, fields, place) + self.separator
        return Problem(given, answers[0], tuple(accepted))

    def items(self) -> list[Problem]:
        """Every item, in order."""
        return load(self.path, self.make, self.limit, options=self.options, where=self.where)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        items = self.items()
        before = self.examples(items)
        # A space at the end belongs to the first word of the answer, which the model is to write itself.
        prompts = [(before + item.given).rstrip(" ") for item in items]
        written = generate(subject, prompts, tokens=self.tokens, stop=self.stop)
        answers = tuple(self.normalise(one.text) for one in written)
        right = [answer in item.accepted for answer, item in zip(answers, items, strict=True)]
        found = proportion(right, truncated=sum(one.truncated for one in written))
        return {"exact_match": replace(found, answers=answers)}

    def normalise(self, text: str) -> str:
        """What is compared of a continuation or an answer; empty where there is nothing."""
        if self.extract is not None:
            matches = list(re.finditer(self.extract, text))
            if not matches:
                return ""
            text = matches[-1][matches[-1].re.groups] or ""
        if self.number:
            numbers = _NUMBER.findall(text)
            return str(Decimal(numbers[-1].replace(",", "")).normalize() + 0) if numbers else ""
        text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text

    def _answers(self, fields: Mapping[str, Any], place: str) -> list[str]:
        if not is_template(self.answer):
            value = look_up(fields, self.answer, place)
            if isinstance(value, list | tuple | np.ndarray) and len(value) > 0:
                return [as_text(one, self.answer, place) for one in value]
        return [wording_of(self.answer, fields, place)]

    def _sought(self) -> str:
        parts = [f"(no match of the regular expression {self.extract!r})"] if self.extract is not None else []
        parts += ["(no number)"] if self.number else []
        return " or ".join(parts) or "(it is empty)"
