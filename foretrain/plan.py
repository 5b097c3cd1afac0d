"""Plan: a recipe with everything resolved: tokenizer, tokens, shapes, inputs by hash. Nothing is trained yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from foretrain import flops
from foretrain.budget import steps_for
from foretrain.distributed import Group, alone
from foretrain.errors import RequestError
from foretrain.evaluation import Validation
from foretrain.fitting import (
    note_metadata,
    note_orders,
    note_split,
    refuse_other_family,
    refuse_other_modality,
    refuse_overlap,
)
from foretrain.hashing import hash_data
from foretrain.learner import Precision
from foretrain.modalities.base import Modality, Processor, modality_named
from foretrain.models.roles import Role
from foretrain.models.size import count_parameters
from foretrain.recipe import Recipe
from foretrain.stages import Timeline, mean_weights
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.prepare import Prepared, Progress
from foretrain.tokens.readable import Readable
from foretrain.tokens.redrawn import Redrawn
from foretrain.tokens.stream import Stream
from foretrain.tokens.tokenizer import TextTokenizer


@dataclass
class Plan:
    """Everything a run needs, resolved from its recipe.

    Attributes:
        config: the `transformers` config of the model.
        context: tokens the model reads at once.
        rows: windows per step over all ranks; `micro_rows`: windows per forward pass on one rank.
        precision: what `precision: auto` came to on this machine.
        total_steps: steps of the whole run; None while a budget in FLOPs or minutes waits for its rehearsal.
        parent: what the run was started from: run, step, hash of its weights; None for a fresh start.
    """

    recipe: Recipe
    prepared: Prepared
    config: PretrainedConfig
    context: int
    rows: int
    micro_rows: int
    precision: Precision
    total_steps: int | None = None
    parent: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def modality(self) -> Modality:
        """What the run learns from."""
        return modality_named(self.recipe.objective.modality)

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer of the run; None where it does not learn from text."""
        return self.prepared.tokenizer

    @property
    def processor(self) -> Processor:
        """What turns raw items into what the model reads; it stands beside the exported model."""
        return self.modality.processor(self.config, self.tokenizer)

    @property
    def tokens_per_step(self) -> int:
        """Tokens the model reads per step, over all ranks."""
        return self.rows * self.context

    @property
    def window(self) -> int:
        """Tokens of the stream that one row needs."""
        return self.recipe.objective.window(self.context)

    @property
    def weights(self) -> dict[str, float]:
        """The recipe's domain weights, as shares; over all stages, where it has some."""
        if self.recipe.stages:
            return mean_weights(self.recipe.stages, self.recipe.corpus)
        total = sum(domain.weight for domain in self.recipe.corpus.values())
        return {name: domain.weight / total for name, domain in self.recipe.corpus.items()}

    def sets(self, split: str) -> dict[str, Readable]:
        """Sets of one split, by domain, where there are any."""
        return {
            name: splits[split]
            for name, splits in self.prepared.sets.items()
            if split in splits and splits[split].tokens > 0
        }

    def timeline(self, total: int, start: int = 0) -> Timeline:
        """The stages of a run of `total` steps that began at step `start`."""
        return Timeline(self.recipe.stages, self.weights, self.recipe.schedule, start, total)

    def stream(self) -> Stream:
        """The stream of training batches, at its start."""
        return Stream(
            self.sets("train"),
            self.weights,
            window=self.window,
            stride=self.context,
            rows=self.rows,
            seed=self.recipe.seed,
            segments=self.recipe.documents == "separate",
            orders={name: domain.order.windows for name, domain in self.recipe.corpus.items()},
            unique={name: domain.unique for name, domain in self.recipe.corpus.items() if domain.unique is not None},
        )

    @cached_property
    def unique(self) -> dict[str, int]:
        """Distinct tokens of the domains that are limited to some, in whole windows."""
        return {name: windows * self.context for name, windows in self.stream().unique.items()}

    def validation(
        self, split: str | None = None, tokens: int | None = None, domains: Collection[str] | None = None
    ) -> Validation:
        """What measures the losses of a split, on all domains or on some: by default the one that judges the run."""
        sets = self.sets(split or self.recipe.evaluation.split)
        return Validation(
            {name: found for name, found in sets.items() if domains is None or name in domains},
            window=self.window,
            stride=self.context,
            tokens=tokens or self.recipe.evaluation.tokens,
            weights=self.weights,
            separate=self.recipe.documents == "separate",
            seed=self.recipe.seed,
        )

    def build_model(self) -> nn.Module:
        """The model at its starting weights, in fp32 on the CPU."""
        return self.recipe.model.build(self.config, self.recipe.seed)

    @cached_property
    def flops_per_step(self) -> int:
        """FLOPs of a step from shapes alone (forward and backward; steering is counted when it runs)."""
        return flops.trained_step(self.skeleton, self.trained, self.rows, self.context)

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The model on the meta device: names and shapes of its parameters."""
        return self.recipe.model.skeleton(self.config)

    @cached_property
    def trained(self) -> nn.Module:
        """The model as it is trained (`parametrization`), on the meta device."""
        return self.recipe.parametrization.apply(self.recipe.model.skeleton(self.config), self.recipe.seed)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Numbers of parameters: `total` and `without_embeddings` of the plain model; `trained`, of those trained."""
        return {**count_parameters(self.skeleton), "trained": count_parameters(self.trained)["trained"]}

    @cached_property
    def hashes(self) -> dict[str, Any]:
        """Hashes of everything that goes in: the recipe, the tokenizer, each domain's `corpus` and `tokens`."""
        tokenizer = None if self.tokenizer is None else self.tokenizer.hash
        told = {name: feedback.content() for name, feedback in self.recipe.feedback.items()}
        models = {name: named.content() for name, named in self.recipe.models.items()}
        return {
            "recipe": hash_data(self.recipe.identity()),
            "tokenizer": tokenizer,
            **self.prepared.hashes,
            **({"feedback": told} if told else {}),
            **({"models": models} if models else {}),
        }

    def epochs(self) -> dict[str, float]:
        """How often the run reads each domain's training text, if its weights stay; empty before it has a length.

        What counts of a domain with `unique` is the text that it is limited to.
        """
        if self.total_steps is None:
            return {}
        read = self.total_steps * self.tokens_per_step
        distinct = {name: self.unique.get(name, found.tokens) for name, found in self.sets("train").items()}
        return {name: read * self.weights[name] / tokens for name, tokens in distinct.items()}

    def plain(self) -> dict[str, Any]:
        """The plan as plain data: `plan.json`."""
        domains = {
            name: {
                split: {
                    "tokens": part.tokens,
                    "documents": part.documents,
                    "bytes": part.bytes,
                    # Of these tokens, so many are trained on.
                    **({"unique": self.unique[name]} if split == "train" and name in self.unique else {}),
                    **_selected(part),
                }
                for split, part in splits.items()
            }
            for name, splits in self.prepared.sets.items()
        }
        steps = self.total_steps
        return {
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "total_steps": steps,
            "tokens_per_step": self.tokens_per_step,
            "tokens": None if steps is None else steps * self.tokens_per_step,
            "flops_per_step": self.flops_per_step,
            "flops": None if steps is None else steps * self.flops_per_step,
            "parameters": self.parameters["total"],
            "parameters_without_embeddings": self.parameters["without_embeddings"],
            "parameters_trained": self.parameters["trained"],
            "memory_estimate": self.memory,
            "model": {
                "type": self.config.model_type,
                "layers": self.config.num_hidden_layers,
                "width": self.config.hidden_size,
                "context": self.context,
                **self.modality.shape(self.config),
            },
            "precision": self.precision,
            "batch": {"rows": self.rows, "micro_rows": self.micro_rows},
            "domains": domains,
            "weights": self.weights,
            "stages": [] if steps is None else self.timeline(steps).plain(),
            "epochs": self.epochs(),
            "hashes": self.hashes,
            "reports": self.prepared.reports,
            "parent": self.parent,
            "notes": self.notes,
        }

    @cached_property
    def memory(self) -> int:
        """Estimated peak memory of training on one device, in bytes."""
        moments = self.recipe.optimizer.moments(Role("matrix", None, ""))
        return flops.memory_estimate(
            self.skeleton, self.micro_rows, self.context, self.precision, moments=moments, trained=self.trained
        )


def _selected(part: Readable) -> dict[str, Any]:
    """Of how many documents and tokens those of a set were kept, where not all were."""
    if not isinstance(part, Arranged | Redrawn) or part.documents == part.base.documents:
        return {}
    return {"kept_of": {"documents": part.base.documents, "tokens": part.base.tokens}}


def make_plan(
    recipe: Recipe,
    group: Group | None = None,
    *,
    tokenizer: TextTokenizer | None = None,
    precision: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Resolve a recipe: read and tokenize the corpus (from the cache where it has been), fit the shapes together.

    Args:
        recipe: what to run.
        group: the processes that will run it; the first one prepares the tokens, the others then find them.
        tokenizer: of the run this one continues; it takes the place of the recipe's.
        precision: what an earlier part of the same run computed in.
        progress: told of the tokens done so far.

    Raises:
        RequestError: whatever does not fit, before any compute is spent.
    """
    group = group or alone()
    modality = modality_named(recipe.objective.modality)
    # A model that isn't there, or is of another kind, is told before the corpus is read.
    refuse_other_family(recipe, modality, recipe.model.config(1, {}))
    refuse_other_modality(recipe, modality)
    for task in recipe.tasks.values():
        task.check()
    items = modality.held_out(recipe)

    def prepared_sets() -> Prepared:
        return modality.prepare(recipe, items, tokenizer, progress if group.main else None)

    prepared = prepared_sets() if group.main else None
    group.wait()
    prepared = prepared or prepared_sets()
    notes = list(prepared.warnings)
    refuse_overlap(recipe, modality.describe_overlaps(prepared.overlaps), notes)
    config = modality.config(recipe, prepared)
    notes += recipe.model.notes(config, prepared.tokenizer)
    context = recipe.model.context_length(config)
    rows = recipe.batch.tokens // context
    if rows == 0:
        raise RequestError(
            f"batch.tokens: {recipe.batch.tokens} tokens are less than one window of {context} (model.context); raise "
            "one or lower the other."
        )
    if rows % group.world:
        raise RequestError(f"batch.tokens: {rows} windows a step cannot be shared evenly by {group.world} processes.")
    micro = recipe.batch.micro
    if micro is not None and micro < context:
        raise RequestError(f"batch.micro: {micro} tokens are less than one window of {context} (model.context).")
    mine = rows // group.world
    plan = Plan(
        recipe=recipe,
        prepared=prepared,
        config=config,
        context=context,
        rows=rows,
        micro_rows=mine if micro is None else min(mine, micro // context),
        precision=_precision(precision or recipe.precision, group.device),
        notes=notes,
    )
    if recipe.budget.steps is not None or recipe.budget.tokens is not None:
        plan.total_steps = steps_for(
            recipe.budget, plan.tokens_per_step, None, lambda step: "", spent=0.0, beside=lambda steps: 0.0
        )
    plan.stream()  # refuses domains too small for one window, weights and limits that do not fit
    if plan.total_steps is not None:
        plan.timeline(plan.total_steps)  # refuses stages without a step
    note_split(plan)
    note_orders(plan)
    note_metadata(plan)
    return plan


def _precision(wanted: str, device: torch.device) -> Precision:
    if wanted == "auto":
        return "bf16" if _native_bf16(device) else "fp32"
    return wanted  # type: ignore[return-value]


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
