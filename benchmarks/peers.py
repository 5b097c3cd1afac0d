"""What the training step is measured against: the plainest well-known loop, and Hugging Face's Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """A pre-norm block as small trainers write it: one product for queries, keys and values, torch's attention."""

    def __init__(self, kind: str, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads, self.gated = heads, kind == "llama"
        bias = not self.gated

        def norm() -> nn.Module:
            return nn.RMSNorm(width, eps=1e-6) if self.gated else nn.LayerNorm(width)

        self.before_attention, self.before_feedforward = norm(), norm()
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.up, self.down = nn.Linear(width, feedforward, bias=bias), nn.Linear(feedforward, width, bias=bias)
        self.gate = nn.Linear(width, feedforward, bias=False) if self.gated else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.qkv(self.before_attention(x)).split(width, 2)
        q, k, v = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        if self.gated:
            q, k = (_rotate(part, cos, sin) for part in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, length, width)
        x = x + self.out(y)
        h = self.before_feedforward(x)
        inner = F.silu(self.gate(h)) * self.up(h) if self.gate is not None else F.gelu(self.up(h), approximate="tanh")
        return x + self.down(inner)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class PlainDecoder(nn.Module):
    """An eager decoder of a given shape with tied embeddings; its forward pass gives the mean loss."""

    def __init__(
        self, kind: str, vocabulary: int, width: int, heads: int, layers: int, feedforward: int, context: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width) if kind == "gpt2" else None
        self.blocks = nn.ModuleList(PlainBlock(kind, width, heads, feedforward) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6) if kind == "llama" else nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        self.head.weight = self.embedding.weight
        size = width // heads
        angles = torch.outer(torch.arange(context).float(), 1 / 10000 ** (torch.arange(0, size, 2) / size)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        length = inputs.shape[1]
        h = self.embedding(inputs)
        if self.position is not None:
            h = h + self.position.weight[:length]
        cos, sin = self.cos[:length].to(h.dtype), self.sin[:length].to(h.dtype)
        for block in self.blocks:
            h = block(h, cos, sin)
        logits = self.head(self.norm(h))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))


class PlainLoop:
    """The plainest loop around any module that gives a loss: autocast, clipping at 1, fused AdamW."""

    def __init__(
        self, model: nn.Module, loss: Callable[[nn.Module, Tensor, Tensor], Tensor], bf16: bool, lr: float
    ) -> None:
        self.model, self.loss, self.bf16 = model.train(), loss, bf16
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1, betas=(0.9, 0.95), fused=True)

    def step(self, tokens: Tensor) -> float:
        """One step on a batch of windows [rows, length + 1]; returns the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def transformers_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of a `transformers` model, made from its logits as its users do."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


def run_hf_trainer(
    model: nn.Module, batches: Iterator[Tensor], steps: int, bf16: bool, lr: float, folder: Path, on: Any
) -> None:
    """Hugging Face's Trainer on given batches of windows, in their order; `on(seconds, loss)` hears of every step.

    The time of a step is that between its callbacks `on_step_begin` and `on_step_end`: forward, backward, clipping,
    optimizer; fetching the batch is not in it.
    """
    import transformers

    class Heard(transformers.TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            on(None, None)
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            on(time.perf_counter() - self.began, None)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                on(None, logs["loss"])

    rows = [row for _, batch in zip(range(steps), batches, strict=False) for row in batch]
    # The model shifts labels by itself; one with learned positions has none for a window's last token.
    longest = rows[0].shape[0] - (0 if model.config.model_type == "llama" else 1)  # type: ignore[union-attr]
    data = [{"input_ids": row[:longest], "labels": row[:longest]} for row in rows]

    class InOrder(transformers.Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(data)  # type: ignore[arg-type]

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, bf16=bf16, per_device_train_batch_size=len(rows) // steps,
        max_steps=steps, learning_rate=lr, weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True, lr_scheduler_type="constant", dataloader_num_workers=0,
        optim="adamw_torch_fused",
    )  # fmt: skip
    InOrder(model=model, args=arguments, train_dataset=data, callbacks=[Heard()]).train()
