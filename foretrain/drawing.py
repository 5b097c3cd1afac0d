"""Drawing: at the end of a run, every steering part is asked what it can show of itself on a little validation text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.files import write_atomic
from foretrain.hashing import seed_from
from foretrain.pictures import Drawn
from foretrain.run_directory import RunDirectory
from foretrain.steering.base import overrides

if TYPE_CHECKING:
    from foretrain.evaluation import Validation
    from foretrain.trainer import Trainer

_ROWS = 6
"""Rows of a picture, over all domains, at most."""
_FIRST = 64
"""Windows of a domain, the first ones, of which some are chosen."""


def draw(trainer: Trainer) -> list[Drawn]:
    """The pictures of all steering parts that draw one, in the recipe's order (a collective call under sharding).

    All ranks draw the same rows. A part that fails must not cost a run its result: what failed is kept in the place of
    its picture, the report says so, and so does a warning.
    """
    parts = [part for part in trainer.steering if overrides(part, "picture")]
    batch = sample(trainer.validation, trainer.plan.recipe.seed) if parts else None
    if batch is None:
        return []
    batch = trainer.objective.prepare(batch).to(trainer.group.device)
    found = []
    for part in parts:
        try:
            picture = part.picture(batch)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            trainer.context.warn(f"steering '{part.kind}' could not draw its picture for the report: {reason}")
            found.append(Drawn(part.kind, None, reason))
        else:
            found += [Drawn(part.kind, picture)] if picture is not None else []
    return found


def write_pictures(directory: RunDirectory, drawn: Sequence[Drawn]) -> None:
    """Write `pictures.json`; where there is nothing to show, there is no such file."""
    if drawn:
        text = json.dumps([each.plain() for each in drawn], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        write_atomic(directory.pictures_path, text.encode("utf-8", errors="replace"))
    else:
        directory.pictures_path.unlink(missing_ok=True)


def sample(validation: Validation, seed: int) -> Batch | None:
    """A few validation windows of each domain, not prepared, pure in `seed`; None where nothing is held out.

    The domains take turns, the heaviest first, so that the first rows show each of them once.
    """
    domains = sorted(validation.sets, key=lambda name: -validation.shares[name])[:_ROWS]
    chosen = [_windows(validation, name, _ROWS // len(domains), seed) for name in domains]
    rows: list[tuple[int, int, Mapping[str, Tensor]]] = []
    for turn in range(max(map(len, chosen), default=0)):
        for name, windows in zip(domains, chosen, strict=True):
            number = list(validation.sets).index(name)
            rows += [(number, *windows[turn])] if turn < len(windows) else []
    if not rows:
        return None
    tensors = {name: torch.stack([window[name] for _, _, window in rows]) for name in rows[0][2]}
    tensors["domain"] = torch.tensor([number for number, _, _ in rows])
    positions = torch.tensor([place for _, place, _ in rows])
    return Batch(tensors, seed=seed, step=0, positions=positions, domains=tuple(validation.sets))


def _windows(validation: Validation, name: str, count: int, seed: int) -> list[tuple[int, dict[str, Tensor]]]:
    """`count` windows of a domain (fewer, where it has fewer) and their places, in the order of the text."""
    pieces = validation.sets[name].windows(
        validation.window, validation.stride, rows=1, limit=validation.tokens, segments=validation.separate
    )
    there = [{key: tensor[0] for key, tensor in window.items()} for window in islice(pieces, _FIRST)]
    if len(there) > 1:
        there.pop()  # the last may have few tokens of its own
    dice = np.random.Generator(np.random.Philox(key=seed_from(seed, "picture", name)))
    places = sorted(dice.permutation(len(there))[:count].tolist())
    return [(place, there[place]) for place in places]
