"""A vision transformer, from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from transformers import PretrainedConfig, ViTConfig

from foretrain.models.scratch import Scratch
from foretrain.parts import Facts
from foretrain.section import Count, Number

if TYPE_CHECKING:
    from typing_extensions import Self


class Vit(Scratch):
    """ViT: an image as patches that attend to each other and to a class token; layer norms first, GELU, biases.

    Presets give layers, width and heads; without token embeddings there are fewer parameters than their names say:
    0.16M in `0.2M`, 0.57M in `1M`, 4.8M in `6M`, 14M in `15M`. It reads images of other sizes too, its positions
    interpolated. What comes out are the normalised hidden states of the class token and of every patch.
    `feedforward` defaults to four times the width.
    """

    kind: Literal["vit"] = "vit"
    architecture: ClassVar[str] = "ViTModel"
    image: int = Field(32, gt=1)
    """Pixels along each side of the images it is made for."""
    patch: int = Field(4, gt=0)
    """Pixels along each side of a patch; `image` should be a multiple of it."""
    channels: Literal[1, 3] = 3
    """Channels of the images: 1 for grey, 3 for RGB."""
    norm_eps: Number = Field(1e-6, gt=0)
    """Added to the variance inside norms."""
    context: Count | None = None
    """Unset: an image has (image / patch) squared patches."""
    tied: bool | None = None
    """Unset: there is no output layer."""
    facts: ClassVar[Facts] = Facts(
        paper="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        arxiv="2010.11929",
        year=2021,
        answers="what is the network? a transformer over the patches of an image",
    )

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.image % self.patch:
            sizes = (
                f"{self.image // self.patch * self.patch or self.patch} or {-(-self.image // self.patch) * self.patch}"
            )
            raise ValueError(
                f"an image of {self.image} pixels is not whole patches of {self.patch}; image should be {sizes}, say"
            )
        if self.context is not None or self.tied is not None:
            raise ValueError("context and tied are of models of text; leave them out")
        return self

    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        config = self.shape()
        config.architectures = [self.architecture]
        config._attn_implementation = "sdpa"
        return config

    def shape(self, **common: Any) -> PretrainedConfig:
        size = self.size
        return ViTConfig(
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=self.feedforward or 4 * size.width,
            image_size=self.image,
            patch_size=self.patch,
            num_channels=self.channels,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            layer_norm_eps=self.norm_eps,
            **common,
        )
