"""A model that exists: a local folder, another run's export, or a Hugging Face hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from foretrain.errors import RequestError
from foretrain.models.base import Model, family, from_config, from_folder
from foretrain.models.encoders import as_encoder, refuse_other_blocks
from foretrain.models.initialise import initialise
from foretrain.models.roles import output_layer
from foretrain.parts import Facts
from foretrain.section import Count, ModelPath, Number

if TYPE_CHECKING:
    from foretrain.tokens.tokenizers.base import Tokenizer

DEFAULT_CONTEXT = 1024
"""Tokens read at once unless the recipe says otherwise; models that read 100,000 are rarely trained on that many."""
_DROPOUTS = re.compile(r"^(?:\w+_)?(?:dropout|pdrop)(?:_prob|_p)?$")


class Pretrained(Model):
    """A decoder, encoder or vision model that `transformers` knows, with its weights, to continue from.

    Only safetensors are read (pickled weights can run code on loading). A masked language model without its output
    layer gets a fresh one, initialised from the seed.
    """

    kind: Literal["pretrained"] = "pretrained"
    path: ModelPath
    """A folder with `config.json` and safetensors, or a hub id (`HF_HUB_OFFLINE=1` keeps to what is already here)."""
    context: Count | None = Field(None, gt=1)
    """Tokens the model reads at once, up to its number of positions; unset: 1024, or fewer if it has fewer."""
    dropout: Number | None = Field(None, ge=0, lt=1)
    """Sets every dropout of the model; unset: as its config has them."""
    encoder: bool = False
    """Read a decoder of Llama's blocks both ways from here on, as an encoder (EuroBERT) with the same weights. For
    masked objectives; say `new_mask: true` there, since the model has not seen a mask."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run."""
    facts: ClassVar[Facts] = Facts(answers="what is the network? one that exists")

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is newer than the first recipes and not used, so that their hashes stay the same."""
        plain: dict[str, Any] = handler(self)
        if not self.encoder:
            del plain["encoder"]
        return plain

    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        config = self._read_config()
        if self.encoder:
            config = as_encoder(config, special.get("mask"), f"model.encoder: '{self.path}'")
        if self.dropout is not None:
            for name in [name for name in config.to_dict() if _DROPOUTS.match(name)]:
                setattr(config, name, self.dropout)
        if family(config) == "vision":
            if self.context is not None:
                raise RequestError(
                    f"model.context: '{self.path}' reads images, which are as many patches as its config says; leave "
                    "`context` out."
                )
            return config
        rows = int(config.vocab_size)
        if vocabulary > rows:
            raise RequestError(
                f"The tokenizer does not fit the model: it has {vocabulary} ids, and the embedding of '{self.path}' "
                f"has {rows} rows. Leave `tokenizer` out to use the model's own."
            )
        positions = self._positions(config)
        if self.context is not None and positions is not None and self.context > positions:
            raise RequestError(
                f"model.context: {self.context} tokens are more than the {positions} positions of '{self.path}'."
            )
        for role in ("bos", "eos", "pad"):
            value = special.get(role)
            known = getattr(config, f"{role}_token_id", None)
            if value is not None and value != known and not (isinstance(known, list) and value in known):
                setattr(config, f"{role}_token_id", value)
        return config

    def context_length(self, config: PretrainedConfig) -> int:
        if family(config) == "vision":
            return super().context_length(config)
        return self.context or min(DEFAULT_CONTEXT, self._positions(config) or DEFAULT_CONTEXT)

    def build(self, config: PretrainedConfig, seed: int) -> PreTrainedModel:
        self._refuse_other_weights()
        try:
            model, loaded = from_folder(
                self.path, config, attn_implementation="sdpa", trust_remote_code=self.trust_remote_code
            )
        except Exception as error:
            raise RequestError(f"The model '{self.path}' cannot be loaded: {_first_line(error)}") from error
        missing = set(loaded["missing_keys"])
        fresh = missing & _head_parameters(model)
        if missing - fresh:
            some = ", ".join(sorted(missing - fresh)[:3])
            raise RequestError(
                f"The weights in '{self.path}' lack {len(missing - fresh)} parameters of its architecture ({some})."
            )
        initialise(model, seed, fresh)
        if self.encoder:
            refuse_other_blocks(model, from_folder(self.path, self._read_config())[0], f"model.encoder: '{self.path}'")
        return model.eval()

    def skeleton(self, config: PretrainedConfig) -> PreTrainedModel:
        with torch.device("meta"):
            return from_config(config, trust_remote_code=self.trust_remote_code)

    def default_tokenizer(self) -> Tokenizer:
        from foretrain.tokens.tokenizers.pretrained import Pretrained as PretrainedTokenizer

        return PretrainedTokenizer(path=self.path, trust_remote_code=self.trust_remote_code)

    def _read_config(self) -> PretrainedConfig:
        folder = Path(self.path)
        if not folder.is_dir() and (
            folder.exists() or not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)?", self.path) or self.path.startswith(".")
        ):
            raise RequestError(
                f"model.path: there is no folder '{self.path}', and it is not a hub id (owner/name) either."
            )
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise RequestError(
                f"model.path: the folder {folder} has no config.json; it should be one that `transformers` saved."
            )
        try:
            config: PretrainedConfig = AutoConfig.from_pretrained(self.path, trust_remote_code=self.trust_remote_code)
        except Exception as error:
            hint = "" if folder.is_dir() else _hub_hint(self.path)
            raise RequestError(
                f"The config of the model '{self.path}' cannot be read: {_first_line(error)}{hint}"
            ) from error
        return config

    def _positions(self, config: PretrainedConfig) -> int | None:
        """How many positions the model has; None for any number of them."""
        positions = getattr(config, "max_position_embeddings", None)
        for name, module in self.skeleton(config).named_modules():
            # RoBERTa and its kin count positions from behind the padding row.
            if (
                isinstance(module, nn.Embedding)
                and name.endswith("position_embeddings")
                and module.padding_idx is not None
            ):
                positions = module.num_embeddings - module.padding_idx - 1
        return None if positions is None else int(positions)

    def _refuse_other_weights(self) -> None:
        folder = Path(self.path)
        if not folder.is_dir():
            return
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            others = sorted(
                path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.h5", "*.gguf") for path in folder.glob(pattern)
            )
            have = f"only {', '.join(others)}" if others else "no weights at all"
            raise RequestError(
                f"The folder {folder} has {have}. foretrain reads safetensors only, since pickled weights can run "
                "code: load the model with transformers where you trust it, and save it again with `save_pretrained`."
            )
        for path in files:
            try:
                with safe_open(path, framework="pt") as handle:
                    handle.keys()
            except (SafetensorError, OSError) as error:
                raise RequestError(
                    f"The weights in {path} are damaged: {_first_line(error)} Copy or download that file again."
                ) from error


def _head_parameters(model: PreTrainedModel) -> set[str]:
    """Names of what stands between the hidden states and the logits, and nowhere else."""
    body = model.base_model
    if body is model or output_layer(model) is None:
        return set()
    inside = {id(parameter) for parameter in body.parameters()}
    return {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) not in inside}


def _first_line(error: Exception) -> str:
    lines: list[Any] = str(error).strip().splitlines() or [type(error).__name__]
    return str(lines[0]).rstrip(". ") + "."


def _hub_hint(path: str) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f" HF_HUB_OFFLINE is set, so only the local cache can be used; unset it, or download '{path}' first."
    return f" If '{path}' was meant as a folder, there is none of that name beside the recipe."
