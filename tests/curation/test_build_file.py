"""The build's file: strict as a recipe is, all faults in one message; and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.curation.build_file import load_build, make_build
from foretrain.curation.executors.slurm import Slurm
from foretrain.curation.stage import Pass
from foretrain.errors import RequestError, RunError
from tests.curation.builds import texts_of, write_lines
from tests.test_cli import call


def test_all_faults_come_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "read: x.txt\nshard: 2\nexamples: -1\nsteps: [near_duplicate, {kind: gopher_quality, fewest: 3}]\n"
    )
    with pytest.raises(RequestError) as caught:
        load_build(tmp_path / "b.yaml")
    for words in ("did you mean 'shards'", "examples", "did you mean 'near_duplicates'", "did you mean 'fewest_words'"):
        assert words in str(caught.value)


def test_a_bare_path_and_its_relatives(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("read: [raw/*.jsonl, {path: 'builtin:english', limit: 3}]\n")
    made = load_build(tmp_path / "b.yaml", ["shards=4"])
    assert (made.name, made.shards) == ("b", 4)
    assert made.read[0].path == str(tmp_path / "raw" / "*.jsonl") and made.read[1].limit == 3
    assert make_build(json.loads(json.dumps(made.plain()))) == made


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "x.jsonl", [{"text": "one"}, {"text": "two"}, {"text": "one"}])
    (tmp_path / "b.yaml").write_text("name: small\nread: x.jsonl\nsteps: [exact_duplicates]\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "corpus", "build", "b.yaml")
    assert code == 0 and "corpora/small/card.html" in out and "the same text (1)" in out
    assert "exact_duplicates: 2 of 3 documents" in err and "datatrove" not in err
    assert texts_of(tmp_path / "corpora" / "small") == ["one", "two"]
    code, out, err = call(monkeypatch, capsys, "corpus", "build", "b.yaml", "--json")
    assert json.loads(out)["manifest"]["documents"] == 2 and err == ""
    code, _, err = call(monkeypatch, capsys, "corpus", "build", "none.yaml")
    assert code == 2 and "none.yaml cannot be read" in err


def test_slurm_gets_its_settings_and_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = pytest.importorskip("datatrove.executor.slurm")
    seen: dict[str, Any] = {}
    waited: list[float] = []

    class Fake:
        job_id, world_size = 7, 2

        def __init__(self, pipeline: Any, **given: Any) -> None:
            seen.update(given, pipeline=pipeline)

        def run(self) -> None:
            seen["run"] = True

        def get_incomplete_ranks(self, skip_completed: bool) -> list[int]:
            return [] if len(waited) == 2 or seen["tasks"] == 1 else [1]

    monkeypatch.setattr(slurm, "SlurmPipelineExecutor", Fake)
    monkeypatch.setattr("foretrain.curation.executors.slurm.time.sleep", waited.append)
    monkeypatch.setattr("foretrain.curation.executors.slurm._queued", lambda executor: len(waited) < 3)
    part = Slurm(partition="cpu", memory=8, workers=5, arguments={"account": "mine"})
    part.run(Pass("sift", 2, [print]), tmp_path / "sift")
    assert len(waited) == 2 and seen["run"]
    assert (seen["partition"], seen["mem_per_cpu_gb"], seen["workers"]) == ("cpu", 8, 5)
    assert (seen["tasks"], seen["sbatch_args"], seen["logging_dir"]) == (2, {"account": "mine"}, str(tmp_path / "sift"))
    waited[:] = [0.0] * 3  # the queue is empty, and a task is not done
    with pytest.raises(RunError, match="1 of 2 tasks of sift did not end"):
        part.run(Pass("sift", 2, [print]), tmp_path / "sift")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="sbatch"):
        part.check()
