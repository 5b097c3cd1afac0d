"""A vision learner small enough for a test, in float64 where derivatives are checked, and what parts see of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import ViTConfig, ViTModel

from foretrain.batch import Batch
from foretrain.distributed import Group
from foretrain.feedback.base import FeedbackSet
from foretrain.learner import Learner, Precision

SIDE, PATCH, WIDTH = 8, 4, 8


def vit(layers: int = 2, dtype: torch.dtype = torch.float64) -> ViTModel:
    """A vision transformer with a patch of 4 pixels."""
    config = ViTConfig(
        image_size=SIDE,
        patch_size=PATCH,
        num_channels=3,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = ViTModel(config, add_pooling_layer=False)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return nn.Module.to(model, dtype)


class Distillation:
    """Two global crops; the student's features of one should tell a frozen teacher's of the other."""

    kind = "distillation"
    modality = "image"

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = {name: weight.detach().clone() for name, weight in teacher.named_parameters()}

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        flat, shape = batch["globals"].flatten(0, 1), batch["globals"].shape[:2]
        student = model(pixel_values=flat).last_hidden_state[:, 0]
        teacher = functional_call(model, self.teacher, (), {"pixel_values": flat}).last_hidden_state[:, 0]
        return student.unflatten(0, shape), teacher.unflatten(0, shape)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        student, teacher = outputs
        return -(teacher.flip(1).softmax(-1) * (3 * student).log_softmax(-1)).sum((1, 2))[:, None] * batch["mask"]


class Pull(FeedbackSet):
    """Feedback whose loss is a linear function of the weights, so that its gradient is known."""

    def __init__(self, learner: Learner, scale: float = 1.0) -> None:
        self.name, self.items, self.learner, self.scale, self.adapted = "pull", 8, learner, scale, 0

    def gradient(self, step: int, rows: int, names: Any) -> tuple[dict[str, Tensor], float]:
        found = {}
        for number, name in enumerate(names):
            generator = torch.Generator().manual_seed(number)
            weight = self.learner.masters[name]
            found[name] = self.scale * torch.randn(weight.shape, generator=generator).to(weight)
        return found, 1.5

    def loss(self, step: int, rows: int) -> float:
        return 1.5

    def adapt(self, step: int, rows: int) -> None:
        self.adapted += 1

    def state_dict(self) -> dict[str, Any]:
        return {"adapted": self.adapted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adapted = state["adapted"]


class Told:
    """A context of a run over images, and all that parts recorded and said."""

    def __init__(
        self, precision: Precision = "fp32", dtype: torch.dtype = torch.float64, scale: float = 1.0, steps: int = 20
    ) -> None:
        model, teacher = vit(dtype=dtype), vit(dtype=dtype)
        self.learner = Learner(model, precision, Group())
        self.learner.model.train()
        self.figures: dict[str, float] = {}
        self.warnings: list[str] = []
        self.set = Pull(self.learner, scale)
        self.context: Any = SimpleNamespace(
            seed=3,
            total_steps=steps,
            device=torch.device("cpu"),
            micro=4,
            learner=self.learner,
            model=self.learner.model,
            weights=self.learner.masters,
            roles=self.learner.roles,
            objective=Distillation(teacher),
            group=Group(),
            record=self.figures.__setitem__,
            warn=self.warnings.append,
            feedback=lambda name: self.set,
            second_moments=dict,
        )


def crops(rows: int = 4, step: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """A prepared batch of random global crops."""
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randn(rows, 2, 3, SIDE, SIDE, generator=generator).to(dtype)
    mask = torch.ones(rows, 1, dtype=torch.bool)
    positions = torch.arange(rows) + step * rows
    return Batch({"globals": pixels, "mask": mask}, seed=3, step=step, positions=positions, domains=("a",))
