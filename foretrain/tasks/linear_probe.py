"""How well a linear classifier does on the model's frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import logsumexp

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.tasks._labelled import LabelledTask, pooled
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.statistics import mean, proportion

Floats = NDArray[np.float64]


class LinearProbe(LabelledTask):
    """Logistic regression with an L2 penalty on frozen features of texts, trained on some items, judged on others.

    The features of a text are its last hidden states, averaged over its tokens or taken at the last one, each
    standardised over the training items. Texts longer than the context are read up to there.

    Metrics: `accuracy`, and `loss` (cross-entropy of the test items, in nats).
    """

    kind: Literal["linear_probe"] = "linear_probe"
    facts: ClassVar[Facts] = Facts(answers="what can be read off the features linearly?")

    pool: Literal["mean", "last"] = "mean"
    """Features are averaged over the text's tokens, or taken at the last."""
    l2: Number = Field(1.0, gt=0)
    """Strength of the penalty `l2 / 2 * |weights|^2`, against the sum of the training items' losses."""

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
