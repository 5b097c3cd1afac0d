"""ImageProcessor: what turns a picture into what the model reads, as `transformers` stores it beside a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from foretrain.augment.normalise import MEAN, STD


@dataclass(frozen=True)
class ImageProcessor:
    """Size and normalisation of the images that a model reads.

    Attributes:
        size: pixels along each side.
        channels: 1 or 3.
    """

    size: int
    channels: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> ImageProcessor:
        """That of a model, by its config."""
        return cls(int(config.image_size), int(config.num_channels))

    def save(self, folder: Path) -> None:
        """Write the file that `AutoImageProcessor.from_pretrained(folder)` loads; it needs Pillow, not torchvision."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": 2,  # bilinear
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [MEAN] * self.channels,
            "image_std": [STD] * self.channels,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
