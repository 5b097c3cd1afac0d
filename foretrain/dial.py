"""The one dial: from a bare text file and a number of minutes to a whole recipe.

Every choice is a plain function below. The sweeps they come from stand with their figures in `docs/dial.md`. Nothing
is measured here, so the same command makes the same recipe each time, and a run that was stopped can be resumed; how
many steps the minutes buy is found out when the run starts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from foretrain.corpus.paths import list_files
from foretrain.errors import RequestError
from foretrain.flops import PEAKS
from foretrain.models.presets import PRESETS, Preset

DEFAULT_MINUTES = 5.0
CORE_SPEED = 1e11
"""FLOPs per second that training reaches on one CPU core: 0.8e11 to 1.4e11 measured, more for larger models."""
GPU_SHARE = 0.3
"""Share of a GPU's published peak that training reaches."""
UNKNOWN_GPU = 1e14
"""Peak of a GPU whose name is not known."""
TRAINING_SHARE = 0.75
"""Share of the minutes that is left for steps; the rest is start, evaluation, export and report."""
TOKENS_PER_PARAMETER = 20.0
"""Tokens per parameter at which compute is well spent (arXiv 2203.15556)."""
MOST_PASSES = 16.0
"""Passes over the same text after which more compute is better spent on a larger model."""
MOST_PARAMETERS = 32.0
"""Parameters for each different token of the text: as many as were tried."""
CPU_CONTEXT = 256
"""Tokens read at once on a CPU; on a GPU it is the preset's context, from this to 1024."""
UNPACKED = 3
"""Compressed text unpacks to about so many times its size."""


def recipe_for(path: Path, minutes: float | None) -> dict[str, Any]:
    """A recipe for the text at `path`: model size, vocabulary, batch, learning rate and schedule for the time given.

    Raises:
        RequestError: there is no such file or folder, or none that can be read, or it is empty.
    """
    minutes = DEFAULT_MINUTES if minutes is None else minutes
    size = text_bytes(path)
    vocabulary = vocabulary_for(size)
    compute = flops_for(minutes)
    preset = preset_for(compute, size / bytes_per_token(vocabulary), vocabulary)
    context = max(CPU_CONTEXT, min(1024, PRESETS[preset].context)) if torch.cuda.is_available() else CPU_CONTEXT
    tokens = compute / (6 * parameters(PRESETS[preset], vocabulary))
    return {
        "name": name_for(path),
        "budget": {"minutes": minutes},
        "tokenizer": {"kind": "bpe", "vocabulary": vocabulary},
        "model": {"kind": "llama", "preset": preset, "context": context},
        "corpus": {"text": {"path": str(path.resolve()), "validation": validation_for(size)}},
        "batch": {"tokens": batch_for(tokens, context)},
        "optimizer": {"kind": "adamw", "lr": learning_rate(PRESETS[preset].width)},
        "schedule": {"kind": "wsd", "warmup": 0.02, "decay": 0.2},
        "evaluation": {"every": 0.1, "tokens": evaluation_for(tokens)},
    }


def name_for(path: Path) -> str:
    """Name of the run: that of the file without its endings, with a dash for what a name cannot hold."""
    name = path.resolve().name
    stem = name if path.is_dir() else name[:1] + name[1:].partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "run"


def text_bytes(path: Path) -> float:
    """Bytes of text in a file or folder, about.

    Raises:
        RequestError: there is none that can be read.
    """
    if not path.exists():
        raise RequestError(
            f"There is no file {path}; `foretrain run` takes a recipe (.yaml) or a text file or folder to train on."
        )
    files = [file for _, file in list_files(path)]
    size = sum(file.stat().st_size * (UNPACKED if file.suffix in (".gz", ".zst") else 1) for file in files)
    if size == 0:
        raise RequestError(f"{path} is empty; there is no text to train on.")
    return size


def flops_for(minutes: float) -> float:
    """FLOPs that training gets on this machine in that time, about."""
    if not torch.cuda.is_available():
        return CORE_SPEED * torch.get_num_threads() * minutes * 60 * TRAINING_SHARE
    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS.items() if part in name), UNKNOWN_GPU)
    return GPU_SHARE * peak * minutes * 60 * TRAINING_SHARE


def vocabulary_for(size: float) -> int:
    """Vocabulary by bytes of text: one id for about 500 bytes, a power of two from 512 to 32,768."""
    return int(min(32_768, max(512, 2 ** round(math.log2(size / 500)))))


def parameters(preset: Preset, vocabulary: int) -> int:
    """Parameters of a `llama` of a preset with another vocabulary."""
    tables = 1 if preset.tied else 2
    return preset.parameters + tables * preset.width * (vocabulary - preset.vocabulary)


def bytes_per_token(vocabulary: int) -> float:
    """Bytes of English per token of a BPE of that size, about."""
    return min(4.5, 0.59 * math.log2(vocabulary) - 3.45)


def preset_for(compute: float, unique: float, vocabulary: int) -> str:
    """The preset that suits that compute (in FLOPs) and that many different tokens of text.

    It is the nearest, in ratio, to one parameter for 20 tokens read; a larger one where that would read the text more
    than 16 times; but not one with more than 32 parameters for each different token.
    """
    enough = math.sqrt(compute / (6 * TOKENS_PER_PARAMETER))
    few_passes = compute / (6 * unique * MOST_PASSES)
    wanted = min(max(enough, few_passes), MOST_PARAMETERS * unique)
    return min(PRESETS, key=lambda name: abs(math.log(parameters(PRESETS[name], vocabulary) / wanted)))


def batch_for(tokens: float, context: int) -> int:
    """Tokens per step of a run of so many tokens: it grows with their square root, from one window on."""
    return max(context, 2 ** round(math.log2(1024 * math.sqrt(tokens / 1e6))))


def learning_rate(width: int) -> float:
    """Peak learning rate of AdamW: inverse to the width (measured from 64 to 192), and never below 3e-4."""
    return round(max(3e-4, 8e-3 * 64 / width), 5)


def validation_for(size: float) -> float:
    """Share of the text held out: about 100 kB, but no less than 1 % and no more than 10 %."""
    return float(f"{min(0.1, max(0.01, 1e5 / size)):.2g}")


def evaluation_for(tokens: float) -> int:
    """Validation tokens per evaluation: eleven of them cost some 3 % of the run."""
    return int(min(131_072, max(8192, 2 ** math.floor(math.log2(tokens / 100)))))
