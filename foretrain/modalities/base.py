"""Modality: what depends on the kind of data that a run learns from, and nothing else does.

An objective names its modality, and that decides how a corpus becomes sets, which families of models fit, what stands
beside an exported model and how tasks see it. Recipe, stream, trainer, checkpoints and reports know of none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import nn
from transformers import PretrainedConfig

from foretrain.corpus.overlap import Overlap
from foretrain.models.base import Family, family
from foretrain.parts import Part, find, kinds
from foretrain.tokens.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from foretrain.recipe import Recipe
    from foretrain.tokens.prepare import Prepared, Progress

HeldOut = Mapping[str, list[str]]
"""What the corpus must not hold: by set (`task NAME`, `feedback NAME`), what each of its items is known by."""


class Processor(Protocol):
    """What turns raw items into what a model reads; it is saved beside the model."""

    def save(self, folder: Path) -> None:
        """Write the files that `transformers` loads it from."""


class Modality(Part):
    """A kind of data. It has no settings: an objective says which one it learns from."""

    axis: ClassVar[str] = "modality"
    families: ClassVar[tuple[Family, ...]] = ()
    """Families of models that read it."""
    noun: ClassVar[str] = ""
    """The word for its items, in messages."""
    counting: ClassVar[tuple[str, str]] = ("Reading", "items")
    """What is said while a corpus is prepared, and what is counted."""

    @abstractmethod
    def reads(self, path: str) -> bool:
        """Whether a path of a recipe is one that such data is read from, as far as names tell."""

    @abstractmethod
    def held_out(self, recipe: Recipe) -> HeldOut:
        """What the items of tasks and feedback are known by in a corpus.

        Raises:
            RequestError: an item cannot be read, or feedback and a task share one.
        """

    @abstractmethod
    def prepare(
        self, recipe: Recipe, items: HeldOut, tokenizer: TextTokenizer | None, progress: Progress | None
    ) -> Prepared:
        """The corpus as sets on disk; the `items` that stand in it are its `overlaps`.

        Args:
            recipe: what to run.
            items: of `held_out`.
            tokenizer: of the run that this one continues, if it has one.
            progress: told of what is done.

        Raises:
            RequestError: an input is missing or wrong, or a setting of the recipe has no meaning for such data.
        """

    @abstractmethod
    def describe_overlaps(self, overlaps: Sequence[Overlap]) -> str:
        """One paragraph on what overlaps."""

    @abstractmethod
    def config(self, recipe: Recipe, prepared: Prepared) -> PretrainedConfig:
        """The config of the recipe's model for this corpus.

        Raises:
            RequestError: they do not fit.
        """

    @abstractmethod
    def shape(self, config: PretrainedConfig) -> dict[str, int]:
        """What a model reads and tells apart, as figures of the plan."""

    @abstractmethod
    def load_tokenizer(self, folder: Path) -> TextTokenizer | None:
        """The tokenizer that a run left in a folder, where such runs have one.

        Raises:
            RequestError: it cannot be read.
        """

    @abstractmethod
    def processor(self, config: PretrainedConfig, tokenizer: TextTokenizer | None) -> Processor:
        """What stands beside an exported model."""

    @abstractmethod
    def loading(self, model_type: str) -> Sequence[str]:
        """Lines of Python that load an exported model of a type by `transformers` alone, for its card."""

    @abstractmethod
    def subject(self, model: nn.Module, tokenizer: TextTokenizer | None, context: int) -> Any:
        """The model as tasks of this modality see it."""

    @abstractmethod
    def samples(self, subject: Any, seed: int) -> list[dict[str, str]]:
        """What a model makes of its own for the report: `prompt` and `text` each; none where it makes nothing."""

    @abstractmethod
    def row(self, tensors: Mapping[str, Any], tokenizer: TextTokenizer | None) -> str:
        """One prepared row of a batch in words, for whoever looks at the data."""


def modality_named(name: str) -> Modality:
    """A modality by its kind.

    Raises:
        RequestError: there is none of that kind.
    """
    return find(Modality, name).model_validate({"kind": name})  # type: ignore[type-abstract]


def all_modalities() -> list[Modality]:
    """Every modality there is."""
    return [part.model_validate({"kind": kind}) for kind, part in kinds(Modality).items()]  # type: ignore[type-abstract]


def modality_of(config: PretrainedConfig) -> Modality:
    """What a model reads, by its family."""
    return next(modality for modality in all_modalities() if family(config) in modality.families)
