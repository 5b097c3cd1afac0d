"""Low-rank adapters beside frozen weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.models.base import family
from foretrain.models.roles import stand_in
from foretrain.models.surgery import chosen_layers
from foretrain.parametrizations.base import Parametrization
from foretrain.parametrizations.low_rank import factor, rank_of
from foretrain.parts import Facts
from foretrain.section import Count, Number

ADAPTER = "default"
"""What `peft` calls the only adapter of a model."""


class LoRA(Parametrization):
    """y = W x + alpha / r * B A dropout(x), with W frozen: only A and B of the chosen layers are trained (by `peft`).

    A is uniform up to 1 / sqrt(in) and B is zero, so that training starts from the model as it is; everything else of
    the model is frozen. The exported model is the plain one with B A added to its weights, and in it the folder
    `adapter` holds A and B alone, in the format of `peft`.
    """

    kind: Literal["lora"] = "lora"
    rank: Count = Field(8, ge=1)
    """Rows of A and columns of B; usual: 4 to 64."""
    alpha: Number = Field(16.0, gt=0)
    """The product is multiplied by alpha / rank."""
    dropout: Number = Field(0.0, ge=0, lt=1)
    """Share of the adapters' inputs dropped in training."""
    targets: str = "matrices"
    """Which of the linear layers inside the blocks: `matrices` (all), `last:2`, `re:(q|v)_proj`; joined by `+`."""
    facts: ClassVar[Facts] = Facts(
        paper="LoRA: Low-Rank Adaptation of Large Language Models",
        arxiv="2106.09685",
        year=2021,
        answers="which numbers are trained? a low-rank change of every weight",
        overhead="two thin products per layer; no gradient and no moments of frozen weights",
    )

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        peft = _peft()
        layers: Any = chosen_layers(model, self.targets)
        for path, layer in layers.items():
            rank_of(self.rank, path, layer)
        settings: Any = model.config
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(layers),
            fan_in_fan_out=any(not isinstance(layer, nn.Linear) for layer in layers.values()),
            task_type="CAUSAL_LM" if family(settings) == "decoder" else None,
            base_model_name_or_path=getattr(settings, "name_or_path", "") or None,
        )
        skeleton = next(model.parameters()).is_meta
        with torch.random.fork_rng(devices=[]):  # what it draws is drawn again below
            peft.inject_adapter_in_model(config, model, ADAPTER, low_cpu_mem_usage=skeleton)
        for path, layer in _adapted(model).items():
            stand_in(layer)
            size, own = (self.rank, layer.in_features), seed_from(seed, "lora", path)
            layer.lora_A[ADAPTER].weight = factor(size, layer.get_base_layer(), own)
            nn.init.zeros_(layer.lora_B[ADAPTER].weight)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        for path, layer in _adapted(model).items():
            layer.merge()
            model.set_submodule(path, layer.get_base_layer())
        del model.peft_config
        return model.requires_grad_(True)

    def save(self, model: nn.Module, folder: Path) -> None:
        known: Any = model.peft_config
        config = known[ADAPTER]
        state = _peft().get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
        config.inference_mode = True
        config.save_pretrained(folder / "adapter")
        # As `peft` names them, whose own models stand around the plain one.
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
        save_file(named, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})


def _adapted(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise RequestError("parametrization `lora` needs peft: pip install 'foretrain[peft]'.") from error
    return peft
