"""TensorBoard: event files inside the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from foretrain.parts import Facts
from foretrain.plain_yaml import format_yaml
from foretrain.trackers.base import Tracker, require


class TensorBoard(Tracker):
    """Scalars for `tensorboard --logdir RUN`, and the recipe as text."""

    kind: Literal["tensorboard"] = "tensorboard"
    facts: ClassVar[Facts] = Facts(answers="where else can the figures be watched? in TensorBoard, from local files")

    folder: str = "tensorboard"
    """Folder of the event files, inside the run directory unless it is absolute."""
    flush: float = 30.0
    """Seconds between writes to disk."""

    _run: Path | None = PrivateAttr(None)
    _recipe: str = PrivateAttr("")
    _writer: Any = PrivateAttr(None)

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        require("tensorboard", self.kind)
        require("torch.utils.tensorboard", self.kind)
        self._run, self._recipe = run, format_yaml(dict(recipe))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = self._open(step)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> Any:
        assert self._run is not None
        from torch.utils.tensorboard import SummaryWriter

        # Readers drop what an earlier event file says of this step and later ones: a resumed run logs them again.
        writer = SummaryWriter(str(self._run / self.folder), purge_step=step, flush_secs=int(self.flush))
        indented = "".join(f"    {line}\n" for line in self._recipe.splitlines())
        writer.add_text("recipe", indented, step)
        return writer
