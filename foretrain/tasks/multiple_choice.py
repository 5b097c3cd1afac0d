"""Whether the model finds the right one of several choices the most likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.special import logsumexp

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.items import Item, LikelihoodTask, Wording, load
from foretrain.tasks.statistics import mean, proportion
from foretrain.wording import as_text, fill, look_up, wording_of


@dataclass(frozen=True, slots=True)
class Question(Item):
    """An item with its choices; `answer` is the number of the right one, from 0."""

    choices: tuple[str, ...]
    answer: int


class MultipleChoice(LikelihoodTask):
    """Ranks the choices of each item by their log-likelihood after the prompt.

    Metrics: `accuracy` (the sum over the choice's tokens decides), `accuracy_norm` (the sum per UTF-8 byte of the
    choice decides, which is fair to long choices), `accuracy_token` (the sum per token decides), and `choice_loss`
    (cross-entropy in nats of the right choice among the choices: it moves long before the accuracies of a small model
    do). Of choices that are equally likely, the first counts as chosen.
    """

    kind: Literal["multiple_choice"] = "multiple_choice"
    facts: ClassVar[Facts] = Facts(answers="is the right choice the most likely one?")
    measures: ClassVar[Mapping[str, bool] | None] = {
        "accuracy": True,
        "accuracy_norm": True,
        "accuracy_token": True,
        "choice_loss": False,
    }

    prompt: Wording = "question"
    """Field with what is given, or a template such as `{passage}\\nQuestion: {question}\\nAnswer:`."""
    choices: str | list[Wording] = Field("choices", min_length=1)
    """Field with the list of choices; or a list of templates, one a choice: `["{a}", "{b}"]`, `["no", "yes"]`."""
    answer: str = "answer"
    """Field with the right choice: its number (`true` is 1), its letter (A, B ...), or its text."""
    first: Literal[0, 1] = 0
    """The number of the first choice, where answers are numbers."""

    def make(self, fields: Mapping[str, Any], place: str) -> Question:
        """The item of one record."""
        choices = self._choices(fields, place)
        value = look_up(fields, self.answer, place)
        answer = self._number(value, choices)
        if answer is None:
            listing = "; ".join(f"{choice[:40]!r}" for choice in choices)
            raise RequestError(
                f"{place}: the field '{self.answer}' holds {value!r}, which is neither the number (from {self.first} "
                f"to {self.first + len(choices) - 1}) nor the letter nor the text of one of its {len(choices)} "
                f"choices: {listing}."
            )
        given = wording_of(self.prompt, fields, place) + self.separator
        return Question(given, choices[answer], tuple(choices), answer)

    def items(self) -> list[Question]:
        """Every item, in order."""
        return load(self.path, self.make, self.limit, options=self.options, where=self.where)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        items = self.items()
        before = self.examples(items)
        texts = [(before + item.given, choice) for item in items for choice in item.choices]
        found = self.likelihoods(subject, texts)
        logs = np.array([one.log for one in found])
        tokens = np.array([one.tokens for one in found])
        sizes = np.array([len(choice.encode()) for _, choice in texts])
        ends = np.cumsum([len(item.choices) for item in items])[:-1]
        answers = [item.answer for item in items]
        cut = sum(
            any(one.truncated for one in found[rows[0] : rows[-1] + 1])
            for rows in np.split(np.arange(len(found)), ends)
        )

        def share(scores: np.ndarray) -> Measured:
            picks = [int(np.argmax(part)) for part in np.split(scores, ends)]
            right = [pick == answer for pick, answer in zip(picks, answers, strict=True)]
            answered = tuple(item.choices[pick] for item, pick in zip(items, picks, strict=True))
            return replace(proportion(right, truncated=cut), answers=answered)

        losses = [
            float(logsumexp(part) - part[answer]) for part, answer in zip(np.split(logs, ends), answers, strict=True)
        ]
        return {
            "accuracy": share(logs),
            "accuracy_norm": share(logs / sizes),
            "accuracy_token": share(logs / tokens),
            "choice_loss": mean(losses, higher_is_better=False, truncated=cut),
        }

    def _choices(self, fields: Mapping[str, Any], place: str) -> list[str]:
        if isinstance(self.choices, str):
            value = look_up(fields, self.choices, place)
            if not isinstance(value, list | tuple | np.ndarray):
                raise RequestError(
                    f"{place}: the field '{self.choices}' should hold a list of choices, but holds {value!r}. Choices "
                    'in fields of their own are named by templates: ["{a}", "{b}"].'
                )
            choices = [as_text(choice, self.choices, place) for choice in value]
        else:
            choices = [fill(choice, fields, place) for choice in self.choices]
        if len(choices) < 2 or not all(choices):
            raise RequestError(
                f"{place}: there should be two choices or more, none of them empty, but they are {choices}."
            )
        return choices

    def _number(self, value: Any, choices: Sequence[str]) -> int | None:
        number: int | None = None
        if isinstance(value, str):
            text = value.strip()
            if value in choices or text in choices:
                return choices.index(value if value in choices else text)
            if len(text) == 1 and text.isascii() and text.isalpha():
                number = ord(text.upper()) - ord("A")
            elif text.isdecimal():
                number = int(text) - self.first
        elif isinstance(value, bool):
            number = int(value)
        elif isinstance(value, int | float) and float(value).is_integer():
            number = int(value) - self.first
        return number if number is not None and 0 <= number < len(choices) else None
