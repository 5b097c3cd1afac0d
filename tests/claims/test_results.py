from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.claims.claim import make_claim
from foretrain.claims.results import environment_of, hardware_words, result_data
from tests.claims.tiny_claim import VALUES, claim_data, found

WHERE = {
    "foretrain": "0.1.0",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "transformers": "5.0", "numpy": "2"},
    "cpu": {"model": "Some CPU", "cores": 8, "usable_cores": 2},
    "memory": 8 << 30,
    "gpus": [],
    "commit": {"commit": "a" * 40, "changed": True},
}


def result(**changes: Any) -> dict[str, Any]:
    folder = Path("slow")
    return result_data(make_claim(claim_data(), folder), folder, "small", found(**changes), WHERE, "2026-01-02")


def test_what_is_kept() -> None:
    kept = result()
    assert (kept["slug"], kept["date"], kept["scale"], kept["verdict"]) == ("slow", "2026-01-02", "small", "reproduced")
    assert kept["versions"] == {"foretrain": "0.1.0", "torch": "2.13.0", "transformers": "5.0", "python": "3.11.7"}
    assert (kept["commit"], kept["changed"]) == ("a" * 40, True)
    assert kept["hardware"] == "2 cores of Some CPU, 8 GiB memory"
    assert kept["totals"]["flops"] == 9e9
    for arm, values in VALUES.items():
        told = {str(seed): value for seed, value in values.items()}
        assert kept["arms"][arm]["metrics"]["validation/loss"]["values"] == told
        assert (kept["arms"][arm]["steps"], kept["arms"][arm]["flops"], kept["arms"][arm]["seconds"]) == (8, 1.5e9, 0.5)
    assert kept["expectations"][0]["interval"] == [0.4, 0.7]
    json.dumps(kept, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("made from /home/someone/data/notes.txt, once", "made from notes.txt, once"),
        ("studies at '/a/b c'", "studies at 'b c'"),
        ("~/claims/base.yaml", "base.yaml"),
        ("task/questions/loss is 3 / 4 of validation/loss", "task/questions/loss is 3 / 4 of validation/loss"),
        ("https://arxiv.org/abs/2001.00001", "https://arxiv.org/abs/2001.00001"),
        ("5 tokens/s and/or builtin:python", "5 tokens/s and/or builtin:python"),
    ],
)
def test_no_path_of_the_machine_is_told(text: str, public: str) -> None:
    assert result(notes=[text])["notes"] == [public]


def test_failed_trials_are_told_of() -> None:
    study = found()
    study["arms"]["slow"] |= {"failed": 1, "trials": [{"seed": 3, "error": "no room in /var/lib/x"}]}
    kept = result(arms=study["arms"])["arms"]["slow"]
    assert (kept["failed"], kept["errors"]) == (1, {"3": "no room in x"})


def test_hardware() -> None:
    gpus = [{"name": "GPU X"}, {"name": "GPU X"}, {"name": "GPU Y"}]
    assert hardware_words({"cpu": {"cores": 1}, "gpus": gpus}) == "1 core of an unknown processor, 2 GPU X, 1 GPU Y"
    assert hardware_words({}) == "unknown hardware"


class TestWhereItRan:
    @staticmethod
    def write(folder: Path, seed: int, commit: str, changed: bool = False) -> None:
        home = folder / "trials" / "plain" / f"seed-{seed}"
        home.mkdir(parents=True)
        where = {**WHERE, "commit": {"commit": commit, "changed": changed}}
        (home / "environment.json").write_text(json.dumps(where))

    def test_the_trials_tell(self, tmp_path: Path) -> None:
        self.write(tmp_path, 0, "b")
        assert environment_of(tmp_path)["commit"] == {"commit": "b", "changed": False}

    def test_several_commits_count_as_changed(self, tmp_path: Path) -> None:
        self.write(tmp_path, 0, "b")
        self.write(tmp_path, 1, "c")
        assert environment_of(tmp_path)["commit"] == {"commit": "c", "changed": True}

    def test_so_does_one_changed_trial(self, tmp_path: Path) -> None:
        self.write(tmp_path, 0, "b", changed=True)
        self.write(tmp_path, 1, "b")
        assert environment_of(tmp_path)["commit"] == {"commit": "b", "changed": True}

    def test_without_trials_it_is_this_machine(self, tmp_path: Path) -> None:
        assert "python" in environment_of(tmp_path)
