"""Weights & Biases."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from foretrain.parts import Facts
from foretrain.trackers.base import Tracker, remember, remembered, require


class Wandb(Tracker):
    """A run on a Weights & Biases server, or in local files that `wandb sync` uploads later."""

    kind: Literal["wandb"] = "wandb"
    facts: ClassVar[Facts] = Facts(answers="where else can the figures be watched? at Weights & Biases")

    project: str = "foretrain"
    """Project that the run belongs to."""
    entity: str | None = None
    """User or team; unset: the account's default."""
    group: str | None = None
    """Runs of one group are shown together."""
    tags: list[str] = []
    """Labels of the run."""
    mode: Literal["online", "offline"] | None = None
    """Send the figures or only keep them in the run directory; unset: what `WANDB_MODE` says, else online."""

    _client: Any = PrivateAttr(None)

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        wandb = require("wandb", self.kind)
        known = remembered(run, self.kind)
        identity = known or uuid.uuid4().hex[:12]
        self._client = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=list(self.tags) or None,
            mode=self.mode,
            name=name,
            id=identity,
            resume="allow",
            dir=str(run),
            config=dict(recipe),
            settings=wandb.Settings(silent=True, console="off"),
        )
        if known is None:
            remember(run, self.kind, identity)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        # After a resume the server already has some steps; the client drops figures of steps below the last one it has.
        self._client.log(dict(figures), step=step)

    def finish(self) -> None:
        if self._client is not None:
            self._client.finish()
            self._client = None
