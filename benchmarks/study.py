"""What a study costs beside its trials, what side by side saves, and what early stopping saves.

Run: `python -m benchmarks.study` (about ten minutes on two cores; `--quick` about three). Three measurements, each of
them a ratio of runs of one sitting:

- overhead: wall seconds of a study times its slots, against the CPU-bound seconds that its trials took;
- side by side: two one-thread trials at a time, against the same trials one after the other;
- stopping: FLOPs of a six-arm study with successive halving, against the same study in full, and whether it finds the
  same winner.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from foretrain.environment import describe
from foretrain.files import write_json
from foretrain.studies.conducting import conduct
from foretrain.studies.executors.local import Local
from foretrain.studies.study import Study, make_study

BASE: dict[str, Any] = {
    "name": "base",
    "tokenizer": {"kind": "bpe", "vocabulary": 1024},
    "model": {"kind": "llama", "layers": 3, "width": 96, "heads": 3, "context": 128},
    "corpus": {"english": {"path": "builtin:english", "validation": 0.05}},
    "batch": {"tokens": 2048},
    "evaluation": {"every": 0.25, "tokens": 16384},
    "precision": "fp32",
}
RATES = {"plain": 8e-3, "a": 2e-2, "b": 3e-3, "c": 1e-3, "d": 3e-4, "e": 1e-4}


def study(arms: int, seeds: int, steps: int, **changes: Any) -> Study:
    chosen = {name: {"optimizer.lr": rate} for name, rate in list(RATES.items())[:arms]}
    return make_study(
        {"name": "bench", "base": {**BASE, "budget": {"steps": steps}}, "arms": chosen, "seeds": seeds, **changes}
    )


def timed(work: Study, folder: Path, slots: int) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a study, and its `study.json`."""
    begin = time.perf_counter()
    found = conduct(work, folder, executor=Local(slots=slots, threads=1))
    return time.perf_counter() - begin, found


def whole_seconds(folder: Path) -> float:
    """Seconds that the runs of a study took in all, evaluations and closing included: from their files' times."""
    total = 0.0
    for plan in folder.glob("trials/*/*/plan.json"):
        total += (plan.parent / "result.json").stat().st_mtime - plan.stat().st_mtime
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter trials")
    parser.add_argument("--slots", type=int, default=2, help="trials side by side")
    parser.add_argument("--write", type=Path, help="folder for a dated result file")
    options = parser.parse_args()
    steps = 120 if options.quick else 500
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conduct(study(1, 1, 2), folder / "warm", executor=Local(slots=1))  # the corpus is tokenized once
        beside, found = timed(study(3, 4, steps), folder / "beside", options.slots)
        trials = whole_seconds(folder / "beside")
        after, _ = timed(study(3, 4, steps), folder / "after", 1)
        full = conduct(study(6, 2, steps), folder / "full", executor=Local(slots=options.slots))
        halved = conduct(
            study(6, 2, steps, stopping="successive_halving"), folder / "half", executor=Local(slots=options.slots)
        )
    result = {
        "trials": found["totals"]["trials"],
        "overhead": beside * options.slots / trials - 1,
        "side_by_side": beside / after,
        "saved_by_stopping": 1 - halved["totals"]["flops"] / full["totals"]["flops"],
        "winner": [winner(full), winner(halved)],
        "seconds": {"side by side": beside, "one after the other": after, "in trials": trials},
        "steps": steps,
        "slots": options.slots,
    }
    print(json.dumps(result, indent=2))
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        write_json(options.write / f"{day}-study.json", {**result, "environment": describe()})


def winner(found: dict[str, Any]) -> str:
    """The arm with the lowest mean validation loss of those that ran to their end."""
    ended = {name: arm for name, arm in found["arms"].items() if arm["stopped"] is None}
    return min(ended, key=lambda name: ended[name]["metrics"]["validation/loss"]["mean"])


if __name__ == "__main__":
    main()
