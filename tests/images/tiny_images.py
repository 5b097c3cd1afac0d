"""A run on images small enough for a test, and the simplest objective that trains on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PrivateAttr
from torch import Tensor, nn

from foretrain.augment.normalise import normalise, unit
from foretrain.batch import Batch
from foretrain.context import Context
from foretrain.distributed import Group
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs
from foretrain.parts import Facts
from foretrain.plan import Plan, make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer

SIZE, PATCH = 16, 4
PATCHES = (SIZE // PATCH) ** 2


class Reconstruction(Objective):
    """A linear layer on each patch's features tells its pixels, from an image of which half the patches are grey."""

    kind: Literal["test_reconstruction"] = "test_reconstruction"
    modality: ClassVar[str] = "image"
    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "vision"
    facts: ClassVar[Facts] = Facts(answers="does the path carry an objective on images?")
    _head: Any = PrivateAttr(None)
    _steps: list[int] = PrivateAttr(default_factory=list)

    def setup(self, context: Context) -> None:
        config: Any = context.model.config
        torch.manual_seed(context.seed)
        self._head = nn.Linear(config.hidden_size, config.num_channels * config.patch_size**2)

    def modules(self) -> Iterable[nn.Module]:
        return (self._head,)

    def prepare(self, batch: Batch) -> Batch:
        seen = np.stack([batch.generator(row, "seen").random(PATCHES) < 0.5 for row in range(batch.rows)])
        values = normalise(unit(batch["pixels"]))
        return batch.with_(targets=patched(values), mask=~torch.from_numpy(seen))

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        pixels = normalise(unit(batch["pixels"]))
        shown = (~batch["mask"]).unflatten(1, (SIZE // PATCH, SIZE // PATCH))
        wide = shown.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
        dtype = next(model.parameters()).dtype
        return Outputs(logits=self._head(model(pixel_values=(pixels * wide).to(dtype)).last_hidden_state[:, 1:]))

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        assert outputs._logits is not None
        return (outputs._logits.float() - batch["targets"]).square().mean(-1) * batch["mask"]

    def after_step(self, step: int) -> None:
        self._steps.append(step)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps[:] = state["steps"]


def patched(values: Tensor) -> Tensor:
    """Images [rows, channels, side, side] as patches [rows, patches, numbers]."""
    return nn.functional.unfold(values, PATCH, stride=PATCH).transpose(1, 2)


def image_data(**changes: Any) -> dict[str, Any]:
    """A tiny recipe on images as plain data, with top-level keys replaced."""
    return {
        "name": "tiny-images",
        "budget": {"steps": 8},
        "objective": {"kind": "test_reconstruction"},
        "model": {"kind": "vit", "layers": 2, "width": 16, "heads": 2, "image": SIZE, "patch": PATCH},
        "corpus": {
            "shapes": {
                "path": "builtin:shapes",
                "options": {"count": 60, "size": SIZE},
                "validation": 0.2,
                "weight": 2,
            },
            "plain": {
                "path": "builtin:shapes",
                "options": {"count": 40, "size": SIZE, "clutter": 0},
                "validation": 0.2,
            },
        },
        "batch": {"tokens": 8 * PATCHES},
        "optimizer": {"lr": 1e-2},
        "evaluation": {"every": 0.5, "tokens": 1024},
        "precision": "fp32",
        **changes,
    }


def image_plan(**changes: Any) -> Plan:
    """The tiny recipe on images, resolved."""
    return make_plan(make_recipe(image_data(**changes)), Group())


def image_trainer(total: int = 8, **changes: Any) -> Trainer:
    """A trainer at its first step."""
    return Trainer(image_plan(**changes), total, Group())


def pictures(count: int, seed: int = 0, shape: tuple[int, ...] = (SIZE, SIZE, 3)) -> NDArray[np.uint8]:
    """Random pictures uint8 [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def save_npz(path: Path, images: NDArray[Any], **arrays: Any) -> str:
    """An archive of images; its path as text."""
    np.savez(path, images=images, **arrays)
    return str(path)
