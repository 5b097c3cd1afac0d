"""Text: documents become tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.formats.base import known
from foretrain.corpus.overlap import Overlap, describe_overlaps, describe_shared, shared_items
from foretrain.errors import RequestError
from foretrain.generation import generate
from foretrain.modalities.base import HeldOut, Modality
from foretrain.models.base import Family
from foretrain.parts import Facts, kinds
from foretrain.subject import Subject
from foretrain.tokens.prepare import Prepared, Progress, prepare
from foretrain.tokens.reserved import with_named
from foretrain.tokens.tokenizer import TextTokenizer, needed

if TYPE_CHECKING:
    from foretrain.recipe import Recipe

SAMPLES = ("", "The ", "In ", "It is ")
"""Prompts of the sample texts in the report."""


class Text(Modality):
    """Documents, tokenized and cut into windows; models of it are decoders or encoders."""

    kind: Literal["text"] = "text"
    facts: ClassVar[Facts] = Facts(answers="what does a run learn from? text")
    families: ClassVar[tuple[Family, ...]] = ("decoder", "encoder")
    noun: ClassVar[str] = "text"
    counting: ClassVar[tuple[str, str]] = ("Tokenizing", "tokens")

    def reads(self, path: str) -> bool:
        if path.startswith("builtin:"):
            return path.removeprefix("builtin:") in kinds(Builtin)  # type: ignore[type-abstract]
        found = Path(path).expanduser()
        if found.is_dir():
            return any(known(file) for file in found.rglob("*"))
        return path.startswith("hub:") or known(found)

    def held_out(self, recipe: Recipe) -> HeldOut:
        tasks = {f"task {name}": list(task.texts()) for name, task in recipe.tasks.items()}
        feedback = {f"feedback {name}": list(part.texts()) for name, part in recipe.feedback.items()}
        shared = describe_shared(shared_items(feedback, tasks))
        if shared:
            raise RequestError(shared)
        return {name: found for name, found in {**tasks, **feedback}.items() if found}

    def prepare(
        self, recipe: Recipe, items: HeldOut, tokenizer: TextTokenizer | None, progress: Progress | None
    ) -> Prepared:
        part = recipe.tokenizer or recipe.model.default_tokenizer()
        found = prepare(
            recipe.corpus,
            part,
            tokenizer=tokenizer,
            items=items,
            progress=progress,
            seed=recipe.seed,
            models=recipe.models,
        )
        names = [name for each in (recipe.objective, *recipe.steering) for name in each.special_tokens()]
        found.tokenizer = with_named(needed(found.tokenizer), names)
        return found

    def describe_overlaps(self, overlaps: Sequence[Overlap]) -> str:
        return describe_overlaps(overlaps)

    def config(self, recipe: Recipe, prepared: Prepared) -> PretrainedConfig:
        fast = needed(prepared.tokenizer)
        special = {"bos": fast.bos, "eos": fast.eos, "pad": fast.pad, "mask": fast.mask}
        return recipe.model.config(fast.vocabulary, special)

    def shape(self, config: PretrainedConfig) -> dict[str, int]:
        return {"vocabulary": config.vocab_size}

    def load_tokenizer(self, folder: Path) -> TextTokenizer | None:
        return TextTokenizer.load(folder)

    def processor(self, config: PretrainedConfig, tokenizer: TextTokenizer | None) -> TextTokenizer:
        return needed(tokenizer)

    def loading(self, model_type: str) -> Sequence[str]:
        name = "AutoModelForMaskedLM" if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "AutoModelForCausalLM"
        return (
            f"from transformers import {name}, AutoTokenizer",
            f'model, tokenizer = {name}.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        )

    def subject(self, model: nn.Module, tokenizer: TextTokenizer | None, context: int) -> Subject:
        return Subject(model, needed(tokenizer), context)

    def samples(self, subject: Subject, seed: int) -> list[dict[str, str]]:
        if not subject.causal:
            return []
        texts = generate(subject, SAMPLES, tokens=min(64, subject.context // 2), temperature=0.8, seed=seed)
        return [text.plain() for text in texts]

    def row(self, tensors: Mapping[str, Any], tokenizer: TextTokenizer | None) -> str:
        return needed(tokenizer).decode(tensors["inputs"].tolist())
