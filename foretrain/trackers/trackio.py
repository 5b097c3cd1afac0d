"""Trackio."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from foretrain.hashing import hash_data
from foretrain.parts import Facts
from foretrain.trackers.base import Tracker, remember, remembered, require


class Trackio(Tracker):
    """A run in Trackio's local database, or in a Hugging Face Space."""

    kind: Literal["trackio"] = "trackio"
    facts: ClassVar[Facts] = Facts(answers="where else can the figures be watched? in Trackio")

    project: str = "foretrain"
    """Project that the run belongs to."""
    space: str | None = None
    """Hugging Face Space to send the figures to; unset: the local database (in `TRACKIO_DIR`)."""

    _client: Any = PrivateAttr(None)
    _last: int = PrivateAttr(-1)

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        trackio = require("trackio", self.kind)
        known = remembered(run, self.kind)
        # Trackio tells runs apart by name alone: two directories of one recipe need two.
        identity = known or f"{name}-{hash_data(str(run.resolve()), 3)}"
        with contextlib.redirect_stdout(io.StringIO()):
            self._client = trackio.init(
                project=self.project,
                name=identity,
                space_id=self.space,
                config=dict(recipe),
                resume="allow" if known else "never",
                embed=False,
                auto_log_gpu=False,
            )
        if known is None:
            remember(run, self.kind, identity)
        else:
            # Trackio counts on from the last step it has; there is no public word for it.
            self._last = getattr(self._client, "_next_step", 0) - 1

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        # It would keep both values of a step that a resumed run logs again.
        if step > self._last:
            self._client.log(dict(figures), step=step)

    def finish(self) -> None:
        if self._client is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                # The module's own, and not the run's: that would be called a second time when the program ends.
                require("trackio", self.kind).finish()
            self._client = None
