"""The one dial: from a bare text file and a number of minutes to a whole recipe.

The choices below come from sweeps on two CPU cores, written down with their figures in `docs/notebook.md`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from foretrain.errors import RequestError
from foretrain.flops import peak_flops
from foretrain.models.presets import PRESETS

DEFAULT_MINUTES = 5.0
EFFICIENCY = 0.3
"""Share of the machine's peak that training of small models reaches; the calibration at the start corrects the rest."""
TOKENS_PER_PARAMETER = 20.0
"""Tokens per parameter at which compute is well spent (arXiv 2203.15556)."""
MOST_EPOCHS = 8.0
"""Beyond about this many passes over the same text a larger model gains nothing (arXiv 2305.16264)."""


def recipe_for(path: Path, minutes: float | None) -> dict[str, Any]:
    """A recipe for the text at `path`: model size, vocabulary, batch, learning rate and schedule for the time given.

    Raises:
        RequestError: there is no such file or folder.
    """
    if not path.exists():
        raise RequestError(
            f"There is no file {path}; `foretrain run` takes a recipe (.yaml) or a text file or folder to train on."
        )
    minutes = DEFAULT_MINUTES if minutes is None else minutes
    size = _bytes(path)
    vocabulary = vocabulary_for(size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = EFFICIENCY * peak_flops(device, "bf16") * minutes * 60
    preset = preset_for(compute, size / bytes_per_token(vocabulary))
    width = PRESETS[preset].width
    return {
        "name": path.stem if path.stem[:1].isalnum() else "run",
        "budget": {"minutes": minutes},
        "tokenizer": {"kind": "bpe", "vocabulary": vocabulary},
        "model": {"kind": "llama", "preset": preset, "context": 256},
        "corpus": {"text": {"path": str(path.resolve()), "validation": 0.05}},
        "batch": {"tokens": 8192 if compute < 1e15 else 65536},
        "optimizer": {"kind": "adamw", "lr": learning_rate(width)},
        "schedule": {"kind": "wsd", "warmup": 0.02},
    }


def vocabulary_for(size: float) -> int:
    """Vocabulary by bytes of text: about one merge for every 500 bytes, between 512 and 32,768, a power of two."""
    return int(min(32_768, max(512, 2 ** round(math.log2(max(size, 1) / 500)))))


def bytes_per_token(vocabulary: int) -> float:
    """Rough bytes per token of English under a BPE of that size."""
    return max(1.5, 0.42 * math.log2(vocabulary) - 1.4)


def preset_for(compute: float, tokens: float) -> str:
    """The largest preset that both the compute (in FLOPs) and the text (in tokens) can feed."""
    by_compute = math.sqrt(compute / (6 * TOKENS_PER_PARAMETER))
    by_text = tokens * MOST_EPOCHS / TOKENS_PER_PARAMETER
    wanted = min(by_compute, by_text)
    fitting = [name for name, preset in PRESETS.items() if preset.parameters <= wanted * 1.25]
    return fitting[-1] if fitting else next(iter(PRESETS))


def learning_rate(width: int) -> float:
    """Peak learning rate of AdamW by width: 4e-3 at 128, falling with the square root of the width."""
    return round(4e-3 * math.sqrt(128 / width), 5)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    # Compressed text unpacks to about three times its size.
    return sum(each.stat().st_size * (3 if each.suffix in (".gz", ".zst") else 1) for each in files)
