"""Subject: a `transformers` model as tasks, generation and probes of its logits see it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from foretrain.kernels.accelerate import CACHE

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer


class Subject:
    """A decoder or encoder of `transformers` that gives logits and features (`tasks.base.Evaluated`).

    The model is read in the precision of its weights, in eval mode and without gradients; each call leaves it in the
    mode it was found in.

    Attributes:
        tokenizer: the tokenizer it was trained with.
        context: most tokens it reads at once.
        causal: whether it is a decoder.
        batch_tokens: most tokens, padding included, that callers hand over at once.
    """

    model: Any

    def __init__(self, model: nn.Module, tokenizer: TextTokenizer, context: int, *, batch_tokens: int = 8192) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.context = context
        self.batch_tokens = batch_tokens
        self.causal = bool(self.model.can_generate() and not self.model.config.is_encoder_decoder)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(iter(self.model.parameters())).device

    def cache(self) -> Cache | None:
        """An empty key-value cache, or None where every layer's cache isn't a plain one.

        Rows of a batch have gaps between a short prompt and what follows it. Full attention passes over them by the
        mask and the positions; windows and recurrent states count columns instead, so such models are read anew.
        """
        if not self.causal or "position_ids" not in inspect.signature(self.model.forward).parameters:
            return None
        cache = DynamicCache(config=self.model.config)
        return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None

    @torch.no_grad()
    def logits(
        self, ids: Tensor, mask: Tensor | None = None, cache: Cache | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Logits float32 (see `Evaluated.logits`); only those of `places` are ever made."""
        inputs = self._inputs(ids, mask)
        if cache is not None:
            known = inspect.signature(self.model.forward).parameters
            inputs |= {next(name for name in CACHE if name in known): cache, "use_cache": True}
            if mask is not None:
                # The number of a token counts the tokens before it in its row, not the padding among them.
                numbers = inputs["attention_mask"].cumsum(1).sub(1).clamp_(min=0)
                inputs["position_ids"] = numbers[:, -ids.shape[1] :]
        elif self.causal:
            inputs["use_cache"] = False
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            chosen = places is not None and stack.enter_context(_only(self.model, places.to(self.device)))
            logits: Tensor = self.model(**inputs).logits
        if places is not None and not chosen:
            logits = logits[places.to(logits.device)]
        return logits.float()

    @torch.no_grad()
    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states float32 [rows, length, width], after the last normalisation."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(output[0])

        inputs = self._inputs(ids, mask)
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            # The whole model is called, not its body: wrappers (sharded weights) hang on the outermost module.
            stack.enter_context(_only(self.model, torch.zeros_like(inputs["input_ids"], dtype=torch.bool)))
            stack.callback(self.model.base_model.register_forward_hook(keep).remove)
            self.model(**inputs)
        return kept[0].float()

    def _inputs(self, ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device)}
        if mask is not None and mask.ndim == 3:
            inputs["attention_mask"] = mask.to(self.device)[:, None]
        elif mask is not None:
            inputs["attention_mask"] = mask.to(self.device, torch.long)
        return inputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module is back in its own mode (not all in that of the outermost)."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _only(model: Any, places: Tensor) -> Iterator[bool]:
    """The output layer sees only the hidden states of `places`; gives whether the model has an output layer to say so.

    This works for any model whose logits come from its output layer and then change one by one (scaled, capped).
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        yield False
        return

    def choose(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][places], *args[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield True
    finally:
        handle.remove()
