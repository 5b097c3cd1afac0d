"""Whether texts whose features lie close together have the same label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.tasks._labelled import Floats, LabelledTask, pooled
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.statistics import proportion


class Knn(LabelledTask):
    """k-nearest neighbours on frozen features: a text gets the label that most of its nearest neighbours have.

    Nearest by cosine, among the items that teach; of labels with as many neighbours, the one whose neighbours are
    nearer. Nothing is trained. Metric: `accuracy`.
    """

    kind: Literal["knn"] = "knn"
    facts: ClassVar[Facts] = Facts(answers="do texts of one label lie together?")
    measures: ClassVar[Mapping[str, bool] | None] = {"accuracy": True}

    k: Count = Field(5, gt=0)
    """Neighbours that vote."""
    pool: Literal["mean", "last"] = "mean"
    """Features are averaged over the text's tokens, or taken at the last."""

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class.

        Raises:
            RequestError: there are fewer items that teach than neighbours.
        """
        train, test = self.items()
        if len(train) < self.k:
            raise RequestError(f"{self.path}: {self.k} neighbours of only {len(train)} items; ask for a smaller `k`.")
        features, cut = pooled(subject, [item.given for item in train + test], self.pool)
        names = sorted({item.right for item in train})
        labels = np.array([names.index(item.right) for item in train])
        voted = vote(features[len(train) :], features[: len(train)], labels, len(names), self.k)
        right = [names[best] == item.right for best, item in zip(voted, test, strict=True)]
        return {"accuracy": proportion(right, truncated=sum(cut[len(train) :]))}


def vote(asked: Floats, known: Floats, labels: np.ndarray, classes: int, k: int) -> list[int]:
    """The class of each row of `asked` by its `k` nearest rows of `known`, whose classes are `labels`."""
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (asked, known)]
    cosines = unit[0] @ unit[1].T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    found = []
    for row, places in enumerate(nearest):
        votes = np.bincount(labels[places], minlength=classes)
        near = np.bincount(labels[places], weights=cosines[row, places], minlength=classes)
        found.append(max(range(classes), key=lambda name: (votes[name], near[name], -name)))
    return found
