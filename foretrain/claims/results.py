"""Results: what is kept of a claim that was run, made from its study and fit to be published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretrain import environment, units
from foretrain.claims.claim import Claim, ScaleName
from foretrain.claims.judging import judge
from foretrain.errors import CorruptFile
from foretrain.files import read_json

FORMAT = 1
"""Version of the format of `result.json`."""
_PATH = re.compile(r"(?<![\w.:/~])(?:~|/[^\s/'\",;:()\[\]{}]+)(?:/[^\s/'\",;:()\[\]{}]+)*/([^\s/'\",;:()\[\]{}]+)")
_COSTS = ("steps", "tokens", "flops", "seconds", "peak_memory", "one_off_flops", "tuning_flops", "stopped", "failed")


def result_data(
    claim: Claim, folder: Path, scale: ScaleName, study: Mapping[str, Any], where: Mapping[str, Any], date: str
) -> dict[str, Any]:
    """`result.json` as plain data.

    Args:
        claim: what was expected.
        folder: the claim's folder.
        scale: at which scale it was run.
        study: what `study.json` says.
        where: what `environment.json` says of the machine on which it ran.
        date: the UTC day.
    """
    verdict, expectations = judge(claim, study)
    if scale == "smoke":
        verdict = "undecided"  # whatever it found: it is too small to decide
    packages = where.get("packages") or {}
    source = where.get("commit") or {}
    data = {
        "format": FORMAT,
        "slug": folder.resolve().name,
        "date": date,
        "scale": scale,
        "verdict": verdict,
        "expectations": expectations,
        "digest": claim.digest(scale, folder),
        "versions": {
            "foretrain": where.get("foretrain"),
            "torch": packages.get("torch"),
            "transformers": packages.get("transformers"),
            "python": where.get("python"),
        },
        "commit": source.get("commit"),
        "changed": source.get("changed"),
        "hardware": hardware_words(where),
        "study": {key: study.get(key) for key in ("baseline", "seeds", "alpha", "match", "metrics", "noise")},
        "arms": {name: _arm(arm) for name, arm in study["arms"].items()},
        "second": [*(study.get("second") or ())],
        "totals": dict(study["totals"]),
        "notes": [*(study.get("notes") or ())],
    }
    public: dict[str, Any] = _public(data)
    return public


def hardware_words(where: Mapping[str, Any]) -> str:
    """A machine in words: `2 cores of Intel Xeon ..., 8 GiB memory`, with its GPUs where it has any."""
    cpu, memory = where.get("cpu") or {}, where.get("memory")
    cores = cpu.get("usable_cores") or cpu.get("cores")
    parts = (
        [f"{cores} core{'' if cores == 1 else 's'} of {cpu.get('model') or 'an unknown processor'}"] if cores else []
    )
    if memory:
        parts.append(f"{units.size(memory)} memory")
    names = [str(gpu["name"]) for gpu in where.get("gpus") or ()]
    parts += [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]
    return ", ".join(parts) or "unknown hardware"


def environment_of(folder: Path) -> dict[str, Any]:
    """Where a study ran: what its trials tell, or this machine where none tells.

    `commit` counts as changed where trials ran at several commits, or at one with changes.
    """
    told = [
        found
        for path in sorted(folder.rglob("trials/**/environment.json"))
        if isinstance(found := _json(path), dict) and "python" in found
    ]
    if not told:
        return environment.describe()
    commits = [found.get("commit") or {} for found in told]
    last = commits[-1]
    changed = any(each.get("changed") for each in commits) or len({each.get("commit") for each in commits}) > 1
    return {**told[-1], "commit": {**last, "changed": changed} if last else None}


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except CorruptFile:
        return None


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's costs (means over its trials) and figures, every seed's among them."""
    metrics = {
        name: {key: figures[key] for key in ("mean", "sd", "values")} for name, figures in arm["metrics"].items()
    }
    errors = {str(trial["seed"]): trial["error"] for trial in arm["trials"] if trial.get("error")}
    return {**{key: arm.get(key) for key in _COSTS}, "errors": errors, "metrics": metrics}


def _public(value: Any) -> Any:
    """Plain data in which absolute paths are cut down to their last piece: results are published."""
    if isinstance(value, str):
        return _PATH.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_public(item) for item in value]
    return value
