"""Experience replay: some of what was read comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from foretrain.parts import Facts
from foretrain.steering._rehearsal import Rehearsal

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.stages import Period


class Replay(Rehearsal):
    """Experience replay: a share of every batch is windows that were read before, all of them equally likely.

    The loss is that of the whole batch, so what was learnt from earlier text is kept while new text is learnt. At a
    fixed batch, replay reads that much less new text: compare it at equal steps, and at equal new text.

    MER (the paper) replays from all that was seen, the current stage included; other work on continual pre-training
    (arXiv 2403.08763) from earlier stages alone. MER adds an interpolation of the weights every few hundred steps:
    steering `reptile`, beside this part.
    """

    kind: Literal["replay"] = "replay"
    facts: ClassVar[Facts] = Facts(
        paper="Revisiting Replay and Gradient Alignment for Continual Pre-Training of Large Language Models",
        arxiv="2508.01908",
        year=2025,
        answers="mix: does text that was read before keep what it taught?",
        overhead="none; the windows it takes are missing elsewhere",
    )

    of: Literal["all seen", "earlier stages"] | list[str] = "all seen"
    """What comes again: all that was read so far, only what was read before the current stage, or what was read in the
    stages of these names."""

    def setup(self, context: Context) -> None:
        """Check the names of stages.

        Raises:
            RequestError: there is no such stage.
        """
        super().setup(context)
        if not isinstance(self.of, str):
            self.check_stages("of", self.of)

    def returns(self, domain: str, stage: str | None, now: Period) -> bool:
        """By the stage alone."""
        if self.of == "all seen":
            return True
        return stage != now.name if self.of == "earlier stages" else stage in self.of
