"""Attention: which tokens of a row see which, as what a `transformers` model is called with.

One set of weights reads in any of three modes: `causal` (a token sees itself and those before it), `bidirectional` (all
see all), `prefix` (the first tokens of a row see each other, later ones read causally). A decoder reads causally and an
encoder both ways by itself; every other way is a mask of every pair, which the models of `transformers` take as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foretrain.errors import RequestError
from foretrain.models.base import family

Mode = Literal["causal", "bidirectional", "prefix"]


def reading(model: nn.Module, mode: Mode, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What makes a model read `inputs` int64 [rows, length] in a mode; nothing where it does so by itself.

    Args:
        model: of `transformers`.
        mode: how each row is read.
        batch: beside `inputs` it may hold `documents` [rows, length], a number per token (a token sees none of another
            number, and positions start anew), and for the mode `prefix` holds `prefix` int64 [rows], the number of
            tokens at each row's start that see each other.
    """
    documents = batch.get("documents")
    if documents is None and mode == own_mode(model):
        return {}
    mask = attention_mask(mode, batch["inputs"].shape[1], documents, batch.get("prefix"), batch["inputs"].device)
    inputs = {"attention_mask": mask.expand(len(batch["inputs"]), -1, -1, -1)}
    if documents is None:
        return inputs
    return {**inputs, "position_ids": positions_within(documents) + _first_position(model)}


def attention_mask(
    mode: Mode,
    length: int,
    documents: Tensor | None = None,
    prefix: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Bool [rows or 1, 1, length, length]: whether a token (third dimension) sees another (fourth)."""
    seen = torch.ones(1, length, length, dtype=torch.bool, device=device)
    if mode != "bidirectional":
        seen = seen.tril()
    if mode == "prefix":
        assert prefix is not None
        seen = seen | (torch.arange(length, device=device) < prefix[:, None])[:, None, :]
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])
    return seen[:, None]


def positions_within(documents: Tensor) -> Tensor:
    """Int64 [rows, length]: each token's place in its document, as far as the window shows it."""
    length = documents.shape[1]
    places = torch.arange(length, device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(starts, places, 0).cummax(dim=1).values


def _first_position(model: Any) -> int:
    """The number of a row's first position: RoBERTa and its kin count from behind the padding row; remembered."""
    known: int | None = getattr(model, "_foretrain_first_position", None)
    if known is None:
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        padding = next((table.padding_idx for table in tables if isinstance(table, nn.Embedding)), None)
        known = model._foretrain_first_position = 0 if padding is None else padding + 1
    return known


def own_mode(model: Any) -> Mode:
    """How a model reads where it is told nothing."""
    return "causal" if family(model.config) == "decoder" else "bidirectional"


def refuse_deaf(model: Any, mode: Mode, asks: str) -> None:
    """Say so where a model does not read as it is told: seen on four tokens, one of which is changed at a time.

    Args:
        model: of `transformers`.
        mode: how it should read.
        asks: what wants it to, for the message.

    Raises:
        RequestError: a token changes what is predicted where it should not be seen, or nothing where it should.
    """
    if mode == own_mode(model) or follows(model, mode):
        return
    raise RequestError(
        f"{asks} needs attention that is {mode}, and a model of type '{model.config.model_type}' does not attend as it "
        "is told. Take model 'eurobert', which reads both ways and causally with the same weights."
    )


@torch.no_grad()
def follows(model: Any, mode: Mode) -> bool:
    """Whether in a mode each token depends on those that it sees, and on no other."""
    weight = model.get_input_embeddings().weight
    base = torch.arange(4, device=weight.device) % len(weight)
    ids = base.repeat(5, 1)
    for place in range(4):  # row 1 + place: another token at that place
        ids[1 + place, place] = (base[place] + 4) % len(weight)
    prefix = torch.full((5,), 2, device=ids.device)
    training = [module for module in model.modules() if module.training]
    model.eval()
    logits = model(input_ids=ids, **reading(model, mode, {"inputs": ids, "prefix": prefix})).logits.float()
    for module in training:
        module.training = True
    moved = (logits[1:] - logits[0]).abs().amax(-1)  # [place changed, place predicted]
    seen = attention_mask(mode, 4, prefix=prefix[:1], device=ids.device)[0, 0].T
    return bool((moved[~seen] <= 1e-4 * logits.abs().max()).all() and (moved[seen] > 0).all())
