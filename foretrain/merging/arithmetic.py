"""Merges that are a formula over the weights of named models, one tensor at a time."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretrain.exporting import export_run
from foretrain.merging.base import Merge, Merged
from foretrain.merging.members import check_members
from foretrain.merging.networks import weights_of
from foretrain.merging.saving import write_weights
from foretrain.merging.searching import Judge
from foretrain.merging.weights import Weights, open_weights, refuse_other_network
from foretrain.modalities.base import modality_of
from foretrain.models.base import from_folder

if TYPE_CHECKING:
    from foretrain.run_directory import RunDirectory


@dataclass(frozen=True)
class Formula:
    """What a merge's weights are.

    Attributes:
        inputs: every model that goes in; the first says what network comes out, with which tokenizer and types.
        tensor: a tensor of the result by its name, float64. Those of whole numbers are the first model's, unasked.
        words: the formula, for people.
        figures: what was found on the way, a number each.
        told: what else was found, as plain data.
    """

    inputs: Sequence[Weights]
    tensor: Callable[[str], Tensor]
    words: str
    figures: dict[str, float] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def like(self) -> Weights:
        """The model whose network comes out."""
        return self.inputs[0]

    def made(self, name: str) -> Tensor:
        """A tensor of the result."""
        return self.tensor(name) if self.like.dtype(name).is_floating_point else self.like.read(name)

    def load(self, into: PreTrainedModel | None = None) -> PreTrainedModel:
        """The result as a model in fp32; `into`: one of this network, whose weights are overwritten."""
        model = into or from_folder(str(self.like.folder), self.like.config)[0].eval()
        with torch.no_grad():
            for name, weight in weights_of(model).items():
                if name in self.like.names:
                    weight.copy_(self.made(name))
        return model

    def plain(self, merge: Merge) -> dict[str, Any]:
        """What `merge.json` says: the part, the formula, the hash of every input, what was found."""
        return {
            "format": 1,
            "merge": merge.model_dump(mode="json"),
            "formula": self.words,
            "inputs": [model.plain() for model in self.inputs],
            "figures": self.figures,
            **self.told,
        }


class WeightArithmetic(Merge):
    """A merge whose weights are a formula over those of named models, and of the runs where it has some.

    What is named may be larger than memory: `foretrain merge` reads and writes one tensor at a time, summed in float64.
    In a study, what comes out is loaded, to be judged.
    """

    @abstractmethod
    def formula(self, runs: Sequence[Weights], judge: Judge) -> Formula:
        """Open what the fields name, and say what becomes of each tensor.

        Args:
            runs: the weights of the runs that are merged; none outside of a study.
            judge: measures candidates, for merges that search.

        Raises:
            RequestError: the models do not fit together, or something is missing.
        """

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        check_members(runs)
        with opened(runs) as weights:
            formula = self.formula(weights, Judge(runs[0]))
            refuse_other_network([formula.like, *weights])
            model = formula.load()
            told = formula.plain(self)
        modality = modality_of(model.config)
        context = int(runs[0].plan()["model"]["context"])
        subject = modality.subject(model, modality.load_tokenizer(runs[0].tokenizer_path), context)
        return Merged(model, subject, told=told)

    def write(self, runs: Sequence[RunDirectory], folder: Path) -> dict[str, Any]:
        check_members(runs, some=False)
        with opened(runs) as weights:
            formula = self.formula(weights, Judge(runs[0] if runs else None))
            told = formula.plain(self)
            members = "\n".join(f"- {each['name']}: {each['path']} (`{each['hash']}`)" for each in told["inputs"])
            card = (
                "---\nlibrary_name: transformers\ntags: [foretrain]\n---\n\n"
                f"# {folder.name}\n\nMerged with foretrain ({self.kind}): {formula.words}.\n\n{members}\n"
            )
            write_weights(folder, formula.like, formula.made, told, card)
        return told


@contextmanager
def opened(runs: Sequence[RunDirectory]) -> Iterator[list[Weights]]:
    """The weights of finished runs; a run that kept its figures only is exported for as long as they are read."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for number, run in enumerate(runs):
            path = run.model_path
            if not (path / "config.json").is_file():
                path = export_run(run, Path(folder) / str(number))
            found.append(open_weights(run.name, path, title=f"run {run.path}"))
        yield found
