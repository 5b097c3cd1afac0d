"""Learn from a smaller teacher first, and from the text alone later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from foretrain.batch import Batch
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.spans import Span, lead
from foretrain.steering._teaching import Known, TaughtByModel

if TYPE_CHECKING:
    from foretrain.context import Context


class Salt(TaughtByModel):
    """SALT: a small, weak model teaches a larger one in the first part of its run, which then goes on without.

    In stage 1, up to `until`, the loss is the cross-entropy to `(1 - w) onehot + w r`, `r` being the teacher's
    distribution; in stage 2 it is that of next-token prediction. Optimizer state and learning rate go on. A small
    model's predictions have less variance than labels, where the text is easy, and a bias where it is hard: so they are
    of use early, and a cap on the learner later. `w` and the temperature are ours (0.5 and 1; the paper's are not
    told), and so is a fade-out that ends where stage 1 does, so that the teacher is asked as often as without.

    The teacher runs in stage 1 alone, and what it costs is counted there. Choosing what stage 1 reads (SALT_DS) is a
    part of its own, `salt_selection`.
    """

    kind: Literal["salt"] = "salt"
    facts: ClassVar[Facts] = Facts(
        paper="A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
        arxiv="2410.18779",
        year=2024,
        answers="target: what does a smaller model hold for likely next, while the learner knows less than it?",
        overhead="in stage 1: a forward pass of the teacher, and the K largest logits of every token",
    )

    until: Span = Field(0.17, gt=0)
    """Where stage 1 ends: a share of the run, or a step. `1.0`: the teacher stays to the end."""
    fade: Number = Field(0.0, ge=0, le=1)
    """The last share of stage 1 in which the teacher's weight falls linearly to zero; 0: it ends at once."""

    _end: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base; stage 1 has one step at least."""
        super().setup(context)
        self._end = lead(self.until, context.total_steps)

    def taught(self, step: int) -> bool:
        """Whether a step is of stage 1."""
        return step < self._end

    def step_kind(self, step: int) -> str:
        return "taught" if self.taught(step) else ""

    def share(self, step: int) -> float:
        left, fading = self._end - step, self.fade * self._end
        return self.weight * (min(1.0, left / fading) if fading > 0 else 1.0)

    def known(self, batch: Batch) -> Known | None:
        return super().known(batch) if self.taught(batch.step) else None

    def state_dict(self) -> dict[str, Any]:
        """Where stage 1 ends: what was planned at the start holds, wherever a budget in minutes moves the run's end."""
        return {"end": self._end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._end = state["end"]
