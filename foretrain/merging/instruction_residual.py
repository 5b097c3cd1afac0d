"""The instruction residual: what tuning changed in one model, added to another one of the same origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from transformers import AutoConfig, PretrainedConfig

from foretrain.errors import RequestError
from foretrain.merging.average import Average
from foretrain.merging.base import Merge, Merged
from foretrain.merging.networks import differences, weights_of
from foretrain.modalities.base import modality_of
from foretrain.models.base import from_folder
from foretrain.parts import Facts
from foretrain.run_directory import RunDirectory
from foretrain.section import ModelPath, Number
from foretrain.tokens.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from foretrain.recipe import Recipe


class InstructionResidual(Merge):
    """The run's weights plus `scale` times (`plus` minus `minus`), summed in float64.

    A base model is tuned to follow instructions; then the base, and not the tuned model, is trained on new text, and
    what tuning had changed is added afterwards (task arithmetic, arXiv 2212.04089, with the tuned model's task vector).
    Plain: `plus` is the tuned model, `minus` the base that it was tuned from, and the run began with that base. Weights
    of models that were not trained from the same ones do not add up. Of several runs it is the mean that is moved.

    The models are read one at a time, beside one sum. What comes out is one model, and costs as much at use.
    """

    kind: Literal["instruction_residual"] = "instruction_residual"
    facts: ClassVar[Facts] = Facts(
        paper="Balancing Continuous Pre-Training and Instruction Fine-Tuning: Optimizing Instruction-Following in LLMs",
        arxiv="2410.10739",
        year=2024,
        answers="what is the model? the run's weights, and what tuning changed in another model",
    )

    plus: ModelPath
    """The model that was tuned: its folder (a run's own, or an exported one), or `product:NAME` in a study."""
    minus: ModelPath
    """The model that it was tuned from, likewise."""
    scale: Number = 1.0
    """How much of the difference is added; the published value is 1."""

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        """See that both models are there, and are one network over the same ids.

        Raises:
            RequestError: they are not.
        """
        (first, plus), (second, minus) = (self._config(which) for which in ("plus", "minus"))
        if differ := differences({}, plus, {}, minus):
            raise RequestError(
                f"merge 'instruction_residual': plus ({first}) and minus ({second}) are not the same network "
                f"({'; '.join(differ[:3])}); the residual is of a model and of the one it was tuned from."
            )
        self._refuse_other_ids(
            self._tokenizer("plus"), self._tokenizer("minus"), f"plus ({first})", f"minus ({second})"
        )

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        merged = Average(last=1).merge(runs)
        model, own = merged.exported, modality_of(AutoConfig.from_pretrained(runs[0].config_path))
        assert model is not None
        weights = weights_of(model)
        sums = {name: weight.double() for name, weight in weights.items()}
        tokenizer = own.load_tokenizer(runs[0].tokenizer_path)
        for which, factor in (("plus", self.scale), ("minus", -self.scale)):
            folder, config = self._config(which)
            self._refuse_other_ids(self._tokenizer(which), tokenizer, f"{which} ({folder})", str(runs[0].path))
            found = weights_of(from_folder(str(folder), config)[0])
            if differ := differences(found, config, weights, model.config):
                raise RequestError(
                    f"merge 'instruction_residual': {which} ({folder}) is not the network of {runs[0].path} "
                    f"({'; '.join(differ[:3])}); name models that were trained from the same weights."
                )
            for name, weight in found.items():
                if weight.is_floating_point():
                    sums[name].add_(weight.double(), alpha=factor)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(sums[name])
        return merged

    def _config(self, which: str) -> tuple[Path, PretrainedConfig]:
        """The folder of a model and its config.

        Raises:
            RequestError: there is no model.
        """
        given = Path(getattr(self, which))
        run = RunDirectory(given)
        folder = run.model_path if run.recipe_path.is_file() else given
        if not (folder / "config.json").is_file():
            raise RequestError(
                f"merge 'instruction_residual': {which}: there is no model in {folder} (no config.json). Name a folder "
                "that `transformers` saved, the directory of a run that has ended, or `product:NAME` in a study."
            )
        return folder, AutoConfig.from_pretrained(folder)

    def _tokenizer(self, which: str) -> TextTokenizer | None:
        folder, config = self._config(which)
        return modality_of(config).load_tokenizer(folder)

    def _refuse_other_ids(self, a: TextTokenizer | None, b: TextTokenizer | None, first: str, second: str) -> None:
        if (a and a.hash) != (b and b.hash):
            raise RequestError(
                f"merge 'instruction_residual': the tokenizers of {first} and {second} differ, so a row of the "
                "embedding stands for two texts. Train all of them with one tokenizer (a pretrained one, or the same "
                "corpus and settings)."
            )
