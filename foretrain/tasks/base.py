"""Task: a downstream evaluation, during and after training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from foretrain.parts import Part
from foretrain.spans import Span

if TYPE_CHECKING:
    from foretrain.images.item import ImageItem
    from foretrain.tokens.tokenizer import TextTokenizer


class Evaluated(Protocol):
    """What a task evaluates: a model, an ensemble or an arithmetic of logits. All give logits of places in a text.

    Rows are padded on the right and `mask` [rows, length] is true where a token is. A cache is opaque to callers: they
    ask for one with `cache()`, hand it to every call of `logits` on the same rows, and drop it. (An ensemble's cache is
    a list of its members' caches, so sums of logits decode as fast as their members do.)
    """

    @property
    def tokenizer(self) -> TextTokenizer:
        """Turns text into ids and back."""

    @property
    def context(self) -> int:
        """Most tokens it reads at once."""

    @property
    def causal(self) -> bool:
        """Whether logits at a place are for the token after it (a decoder); else for the token at it (an encoder)."""

    @property
    def batch_tokens(self) -> int:
        """Most tokens, padding included, that a caller should hand over at once. It changes memory, never results."""

    def cache(self) -> Any | None:
        """An empty cache for one batch of rows, or None where the model has none that copes with padded rows."""

    def logits(
        self, ids: Tensor, mask: Tensor | None = None, cache: Any | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Logits float32, without gradient.

        Args:
            ids: int64 [rows, length], the tokens to read; with a cache, those that it doesn't hold yet.
            mask: bool [rows, read before + length]; unset: every place holds a token. Or, without a cache, bool
                [rows, length, length]: which tokens the token at each place reads.
            cache: what `cache()` gave; it holds these tokens too afterwards.
            places: bool [rows, length], the places whose logits are wanted; unset: all.

        Returns:
            [rows, length, vocabulary], or, with `places`, [number of them, vocabulary] in row-major order.
        """

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states float32 [rows, length, width], without gradient."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of a task: its mean over items, with a 95 % interval.

    Attributes:
        value: the mean (weighted by `weights` where there are some).
        low: lower end of the interval; None where there is none (a single item, a metric that isn't a mean of items).
        high: upper end of the interval.
        items: how many items it was measured on.
        higher_is_better: which way is good.
        values: each item's own value, in the order of the items, for paired comparisons.
        weights: each item's weight (tokens, bytes); empty: all the same.
        truncated: how many items did not fit the context and lost the beginning (or the rest) of what was given.
        answers: what was answered to each item, where the metric goes by an answer; empty: it does not.
    """

    value: float
    low: float | None
    high: float | None
    items: int
    higher_is_better: bool
    values: tuple[float, ...] = field(default=(), repr=False)
    weights: tuple[float, ...] = field(default=(), repr=False)
    truncated: int = 0
    answers: tuple[str, ...] = field(default=(), repr=False)

    def plain(self) -> dict[str, Any]:
        """The figures without what is known of each item, for result files."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "items": self.items,
            "higher_is_better": self.higher_is_better,
            "truncated": self.truncated,
        }


class Task(Part):
    """A downstream evaluation. Its items are held out from corpus and feedback; overlap is an error.

    A task depends on the subject and its own fields alone, not on the run's seed: two runs are judged on the same
    items, in the same prompts.
    """

    axis: ClassVar[str] = "task"
    modality: ClassVar[str] = "text"
    measures: ClassVar[Mapping[str, bool] | None] = None
    """The metrics it gives, each with whether higher is better; None where they are known only once it has run."""

    every: Span | None = Field(None, gt=0)
    """How often during training: a share of the run, or steps; unset: only at the end."""

    def check(self) -> None:
        """Find what would go wrong later, before anything is trained: files, fields, extras.

        Raises:
            RequestError: something is missing or malformed.
        """
        for _ in self.texts():
            pass

    def texts(self) -> Iterable[str]:
        """The texts of its items, for the check against overlap with the corpus."""
        return ()

    def images(self) -> Iterable[ImageItem]:
        """The images of its items, for the check that the corpus holds none of them."""
        return ()

    @abstractmethod
    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """Every metric of this task by name; `seed` is for tasks that sample."""
