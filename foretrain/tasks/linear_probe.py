"""How well a linear classifier does on the model's frozen features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from scipy.optimize import minimize
from scipy.special import logsumexp

from foretrain.corpus.where import Wanted, without_unused
from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Number
from foretrain.tasks._probing import Judging, divided
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tasks.items import Item, Wording, load
from foretrain.tasks.likelihood import batches, pad_right, start
from foretrain.tasks.statistics import mean, proportion
from foretrain.wording import as_text, look_up, wording_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled(Item):
    """A text (`given`) and its label (`right`)."""

    @property
    def text(self) -> str:
        """The text without its label."""
        return self.given


class LinearProbe(Task):
    """Logistic regression with an L2 penalty on frozen features of texts, trained on some items, judged on others.

    The features of a text are its last hidden states, averaged over its tokens or taken at the last one, each
    standardised over the training items. Texts longer than the context are read up to there.

    Metrics: `accuracy`, and `loss` (cross-entropy of the test items, in nats).
    """

    kind: Literal["linear_probe"] = "linear_probe"
    facts: ClassVar[Facts] = Facts(answers="what can be read off the features linearly?")

    path: DataPath
    """A .jsonl, .csv or .parquet file of items (.gz and .zst too), a folder of them, or `builtin:NAME`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set; for `test` too, where that is a path."""
    where: dict[str, Wanted] = {}
    """Keep items whose fields have these values (any of them, for a list)."""
    text: Wording = "text"
    """Field with the text, or a template such as `{title}. {body}`."""
    label: str = "label"
    """Field with the label: text or a number."""
    test: Judging = 0.25
    """The items that judge: a share (by content hash, so that equal texts stay together), or a path of their own."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many items (of each path), chosen by their content."""
    pool: Literal["mean", "last"] = "mean"
    """Features are averaged over the text's tokens, or taken at the last."""
    l2: Number = Field(1.0, gt=0)
    """Strength of the penalty `l2 / 2 * |weights|^2`, against the sum of the training items' losses."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain = without_unused(self, handler)
        if not plain["options"]:  # so that hashes from before there were any stay the same
            del plain["options"]
        return plain

    def make(self, fields: Mapping[str, Any], place: str) -> Labelled:
        """The item of one record."""
        label = as_text(look_up(fields, self.label, place), self.label, place)
        return Labelled(wording_of(self.text, fields, place), label)

    def items(self) -> tuple[list[Labelled], list[Labelled]]:
        """The items that the classifier learns from, and those that judge it.

        Raises:
            RequestError: one side is empty, the training side holds a single label, or the sides share a text.
        """
        found = self._load(self.path)
        if isinstance(self.test, str):
            train, test = found, self._load(self.test)
            shared = {item.given for item in train} & {item.given for item in test}
            if shared:
                raise RequestError(
                    f"{self.path} and {self.test} share {len(shared)} texts, such as {min(shared)[:60]!r}; a probe "
                    "should be judged on texts that it didn't learn from."
                )
        else:
            train, test = divided(((item.given, item) for item in found), self.test)
        if not train or not test:
            raise RequestError(f"{self.path}: {len(train)} items to learn from and {len(test)} to judge are too few.")
        labels = {item.right for item in train}
        if len(labels) < 2:
            raise RequestError(
                f"{self.path}: all items have the label {labels.pop()!r} ('{self.label}'); two are needed."
            )
        return train, test

    def _load(self, path: str) -> list[Labelled]:
        return load(path, self.make, self.limit, options=self.options, where=self.where)

    def texts(self) -> Iterable[str]:
        """The texts of the items that judge."""
        return (item.text for item in self.items()[1])

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        train, test = self.items()
        features, cut = pooled(subject, [item.given for item in train + test], self.pool)
        known, asked = features[: len(train)], features[len(train) :]
        centre, spread = known.mean(0), known.std(0)
        spread[spread == 0] = 1.0
        names = sorted({item.right for item in train})
        weights, bias = fit((known - centre) / spread, [names.index(item.right) for item in train], len(names), self.l2)
        scores = (asked - centre) / spread @ weights + bias
        cut_test = sum(cut[len(train) :])
        right = [names[best] == item.right for best, item in zip(scores.argmax(1), test, strict=True)]
        metrics = {"accuracy": proportion(right, truncated=cut_test)}
        if all(item.right in names for item in test):
            chosen = scores[np.arange(len(test)), [names.index(item.right) for item in test]]
            losses = logsumexp(scores, axis=1) - chosen
            metrics["loss"] = mean(losses.tolist(), higher_is_better=False, truncated=cut_test)
        return metrics


def pooled(subject: Evaluated, texts: Sequence[str], pool: Literal["mean", "last"]) -> tuple[Floats, list[bool]]:
    """Features float64 [texts, width] of each text, and whether it was too long to be read whole."""
    encoded = [ids or [start(subject.tokenizer)] for ids in subject.tokenizer.encode(texts)]
    rows = [ids[: subject.context] for ids in encoded]
    found: dict[int, Floats] = {}
    for chosen in batches([(len(row), 0) for row in rows], subject.batch_tokens):
        ids, mask = pad_right([rows[i] for i in chosen])
        states = subject.features(ids, mask)
        mask = mask.to(states.device)
        if pool == "mean":
            vectors = (states.double() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            vectors = states[torch.arange(len(chosen)), mask.sum(1) - 1].double()
        found |= dict(zip(chosen, vectors.cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(rows))]), [len(ids) > subject.context for ids in encoded]


def fit(features: Floats, labels: Sequence[int], classes: int, l2: float) -> tuple[Floats, Floats]:
    """Multinomial logistic regression.

    Minimises the sum of the items' cross-entropies plus `l2 / 2 * |weights|^2` (the bias is free). The optimum is
    unique up to a shift of the bias, and the start is zero, so the result depends on the data alone.

    Args:
        features: float64 [items, width].
        labels: class of each item, from 0.
        classes: number of classes.
        l2: strength of the penalty.

    Returns:
        weights [width, classes] and bias [classes].
    """
    items, width = features.shape
    onehot = np.eye(classes)[np.asarray(labels)]

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        scores = features @ weights + bias
        norms = logsumexp(scores, axis=1, keepdims=True)
        loss = float((norms[:, 0] - (scores * onehot).sum(1)).sum() + l2 / 2 * (weights * weights).sum())
        errors = np.exp(scores - norms) - onehot
        slope = np.concatenate([(features.T @ errors + l2 * weights).ravel(), errors.sum(0)])
        return loss / items, slope / items

    start_at = np.zeros((width + 1) * classes)
    found = minimize(
        objective, start_at, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7}
    )
    return found.x[: width * classes].reshape(width, classes), found.x[width * classes :]
