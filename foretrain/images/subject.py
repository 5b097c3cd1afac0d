"""ImageSubject: a vision model of `transformers` as tasks see it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foretrain.augment.normalise import normalise, unit
from foretrain.subject import evaluating


class ImageSubject:
    """Gives features of images.

    The model is read in the precision of its weights, in eval mode and without gradients; each call leaves it in the
    mode it was found in.

    Attributes:
        model: of the family `vision`.
        size: pixels along each side of the images it was trained for; it takes others too.
        patch: pixels along each side of a patch.
        channels: of its images.
        batch_images: most images that callers hand over at once. It changes memory, never results.
    """

    model: Any

    def __init__(self, model: nn.Module, *, batch_images: int = 256) -> None:
        self.model = model
        self.batch_images = batch_images
        self.size, self.patch = int(self.model.config.image_size), int(self.model.config.patch_size)
        self.channels = int(self.model.config.num_channels)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(iter(self.model.parameters())).device

    @torch.no_grad()
    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states of images uint8 [rows, channels, height, width], without gradient.

        Returns:
            Of the class token, float32 [rows, width], and of the patches, float32 [rows, down, across, width]; where a
            model has no class token, the mean of its patches stands for it.
        """
        dtype = next(iter(self.model.parameters())).dtype
        down, across = (side // self.patch for side in pixels.shape[-2:])
        with evaluating(self.model):
            found = self.model(
                pixel_values=normalise(unit(pixels.to(self.device))).to(dtype), interpolate_pos_encoding=True
            ).last_hidden_state.float()
        patches = found[:, -down * across :]
        whole = found[:, 0] if found.shape[1] > down * across else patches.mean(1)
        return whole, patches.unflatten(1, (down, across))
