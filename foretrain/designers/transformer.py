"""A small decoder that rewrites next-token targets: it reads the text and the true token, and scores candidates."""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from foretrain.hashing import seed_from
from foretrain.kernels.accelerate import accelerate
from foretrain.models.attention import attention_mask, positions_within
from foretrain.models.initialise import initialise
from foretrain.models.presets import swiglu_width
from foretrain.section import Count, Section

LEAST = -10.0
"""Log-probabilities below this look alike to a designer."""
SHARE = 5
"""A designer that is scaled to its learner has at most one such part of the learner's parameters."""

_GATHERED = 1 << 24
"""Numbers of candidate embeddings held at once where no gradient is needed (64 MiB)."""


class Size(Section):
    """Shape of a designer."""

    layers: Count = Field(2, gt=0)
    """Blocks."""
    width: Count = Field(64, gt=1)
    """Features per token, a multiple of twice the heads."""
    heads: Count = Field(2, gt=0)
    """Attention heads."""

    @model_validator(mode="after")
    def _fits(self) -> Size:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} should be a multiple of twice its {self.heads} heads")
        return self

    def parameters(self, vocabulary: int) -> int:
        """Number of parameters, for a vocabulary of that size, without what `beliefs` adds."""
        block = 4 * self.width**2 + 3 * self.width * swiglu_width(self.width) + 2 * self.width
        return vocabulary * self.width + self.layers * block + 2 * self.width**2 + 2 * self.width + 2


PAPER = Size(layers=6, width=256, heads=4)
"""The designer of the paper (arXiv 2601.22108)."""


def scaled_size(learner: int, vocabulary: int) -> Size:
    """The widest designer of two blocks with at most a fifth of the learner's parameters (16 features at the least)."""
    sizes = [Size(width=width, heads=max(1, width // 32)) for width in (16, *range(32, PAPER.width + 1, 32))]
    fitting = [size for size in sizes if size.parameters(vocabulary) <= learner // SHARE]
    return fitting[-1] if fitting else sizes[0]


class TransformerDesigner(nn.Module):
    """For every token a distribution over its candidates, and how much of the target it gets.

    The score of a candidate is the inner product of its embedding with what the decoder makes of the text up to the
    token and of the true next token, plus a learned multiple of the learner's own log-probability. It begins with that
    multiple at 1 and the product at 0, so with the learner's own distribution: under an optimizer that is blind to the
    scale of gradients, that changes nothing yet.

    With `beliefs` (ours) it also reads how likely the learner finds the true token and its best rival, and knows the
    rank of each candidate: what a target does depends on both, and text alone tells them only to a designer that can
    do what the learner does.

    Args:
        size: of the decoder.
        vocabulary: ids that may be read or scored.
        context: most tokens of a row.
        candidates: targets a token.
        largest: most weight `alpha` that the distribution can get.
        opening: the share of it that it gets at the start.
        beliefs: whether it reads what the learner makes of the candidates.
        seed: decides the starting weights.
    """

    def __init__(
        self,
        size: Size,
        vocabulary: int,
        context: int,
        *,
        candidates: int,
        largest: float,
        opening: float,
        beliefs: bool,
        seed: int,
    ) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=1,
            hidden_size=size.width,
            intermediate_size=swiglu_width(size.width),
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=context,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        config._attn_implementation = "sdpa"
        self.largest = largest
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.next = nn.Linear(size.width, size.width, bias=False)
        self.decoder = LlamaModel(config)
        initialise(self.decoder, seed_from(seed, "designer"))
        del self.decoder.embed_tokens  # it is given embeddings
        self.query = nn.Linear(size.width, size.width, bias=False)
        self.prior = nn.Parameter(torch.ones(()))
        self.gate = nn.Linear(size.width, 1)
        self.beliefs = nn.Linear(2, size.width, bias=False) if beliefs else None
        self.ranks = nn.Embedding(candidates, size.width) if beliefs else None
        generator = torch.Generator().manual_seed(seed_from(seed, "designer, its ends"))
        with torch.no_grad():
            drawn = [self.embedding, self.next, self.beliefs, self.ranks]
            for module in (module for module in drawn if module is not None):
                module.weight.normal_(0.0, math.sqrt(2 / (5 * size.width)), generator=generator)
            self.query.weight.zero_()
            self.gate.weight.zero_()
            self.gate.bias.fill_(math.log(opening / (1 - opening)))
            self.prior.fill_(1.0)
        accelerate(self)

    def forward(
        self, inputs: Tensor, labels: Tensor, ids: Tensor, known: Tensor, documents: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distributions over candidates, and their share of the target.

        Args:
            inputs: int64 [rows, length], the text as the learner reads it.
            labels: int64 [rows, length], the true next tokens.
            ids: int64 [rows, length, K], the candidates.
            known: float32 [rows, length, K], the learner's log-probabilities of them.
            documents: int [rows, length], numbers of the documents, where attention stays within them.

        Returns:
            `r` float32 [rows, length, K], summing to 1; `alpha` float32 [rows, length], in [0, largest].
        """
        read = self.embedding(inputs) + self.next(self.embedding(labels))
        if self.beliefs is not None:
            read = read + self.beliefs(known[..., :2].clamp_min(LEAST) / -LEAST)
        separate: dict[str, Tensor] = {}
        if documents is not None:
            separate["attention_mask"] = attention_mask(
                "causal", documents.shape[1], documents, device=documents.device
            )
            separate["position_ids"] = positions_within(documents)
        hidden = self.decoder(inputs_embeds=read, use_cache=False, **separate).last_hidden_state
        # One product per candidate: a row of the embedding for each, never the whole vocabulary.
        query = self.query(hidden)
        scores = torch.einsum("bld,blkd->blk", query, self.embedding(ids))
        if self.ranks is not None:
            scores = scores + query @ self.ranks.weight.T
        scores = scores * hidden.shape[-1] ** -0.5
        r = (scores + self.prior * known).softmax(-1)
        return r, self.largest * self.gate(hidden)[..., 0].sigmoid()

    @torch.no_grad()
    def targets(
        self, inputs: Tensor, labels: Tensor, ids: Tensor, known: Tensor, documents: Tensor | None = None
    ) -> Tensor:
        """The mixed targets, float32 [rows, length, K], of as many rows at once as memory allows; see `forward`."""
        rows = max(1, _GATHERED // (ids[0].numel() * self.embedding.embedding_dim))
        apart = (inputs, labels, ids, known, *(() if documents is None else (documents,)))
        pieces = zip(*(tensor.split(rows) for tensor in apart), strict=True)
        return torch.cat([mixed_target(*self(*piece)) for piece in pieces])


def mixed_target(r: Tensor, alpha: Tensor) -> Tensor:
    """`q = (1 - alpha) onehot + alpha r` on candidates whose first is the true token: [rows, length, K]."""
    q = alpha[..., None] * r
    true = q[..., :1] + (1 - alpha[..., None])
    return torch.cat([true, q[..., 1:]], -1)
