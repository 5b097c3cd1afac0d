"""Respelled: English prose in which some common words have a second spelling, so that tokens have true rivals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.builtin.english import English
from foretrain.corpus.document import Document
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Number

WORDS = ("the", "and", "for", "that", "with", "from", "this", "are", "not", "can", "will", "which", "when", "should")
"""The words that have a second spelling: themselves read backwards."""
_FOUND = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")
_TWINS = {"aifc": "wave", "sunau": "wave"}
"""Modules whose documentation repeats another's: they stay in one part."""
_PARTS: Mapping[str, tuple[float, float]] = {
    "train": (0.0, 0.75),
    "feedback": (0.75, 0.85),
    "tune": (0.85, 0.9),
    "test": (0.9, 1.0),
}
"""Shares of the modules."""


class Respelled(Builtin):
    """The prose of `builtin:english`, where fourteen common words are spelled backwards by chance, each time anew.

    About one word in seven is one of them. Nothing but chance says which spelling comes, so a model of the text can do
    no better than give both their shares; feedback whose spelling is all of one kind prefers one of two tokens that
    the model holds possible, in text that is otherwise real. Modules are divided among the parts by their names.
    Metadata: `module`.
    """

    kind: Literal["respelled"] = "respelled"
    facts: ClassVar[Facts] = Facts(answers="does feedback decide between two ways of writing that a real text mixes?")
    share: Number = Field(0.3, ge=0, le=1)
    """Chance of the second spelling, for every one of these words by itself."""
    part: Literal["all", "train", "feedback", "tune", "test"] = "all"
    """Which documents: three quarters of the modules are for training, a tenth is for feedback, a twentieth to tune by
    and a tenth to judge by."""
    seed: int = Field(0, ge=0)
    """Another seed draws the spellings anew; the parts stay."""

    def sources_hash(self) -> str:
        """That of the standard library."""
        return English().sources_hash()

    def documents(self) -> Iterator[Document]:
        """Every document of the part."""
        low, high = _PARTS.get(self.part, (0.0, 1.0))
        for document in English().documents():
            module = str(document.metadata["module"])
            if low <= seed_from("respelled", "part", _TWINS.get(module, module)) / 2**63 < high:
                yield Document(
                    document.id.replace("english:", "respelled:", 1),
                    self.spelled(document.text, document.id),
                    "builtin:respelled",
                    {"module": module},
                )

    def spelled(self, text: str, key: str) -> str:
        """A text with its common words spelled one way or the other; pure in the seed and the key."""
        dice = Dice(self.seed, "respelled", key)
        limit = self.share * (1 << 30)
        return _FOUND.sub(lambda found: found[0][::-1] if dice.below(1 << 30) < limit else found[0], text)
