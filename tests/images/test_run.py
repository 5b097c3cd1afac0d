"""Images on the path of text: a whole run, its resumption, its export, its report; and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoImageProcessor, AutoModel

import foretrain as ft
from foretrain import views
from foretrain.api import evaluate, show_data, subject_of
from foretrain.checks import check_part
from foretrain.console import THEME
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.exporting import export_run, load_run_model
from foretrain.images.subject import ImageSubject
from foretrain.modalities.base import modality_of
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from tests.images.tiny_images import (
    PATCHES,
    SIZE,
    Reconstruction,
    image_data,
    image_plan,
    image_trainer,
    pictures,
    save_npz,
)
from tests.tiny import tiny_data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    data = image_data(budget={"steps": 40}, checkpoint={"every": 10, "keep": 9})
    return ft.run(make_recipe(data), out=tmp_path_factory.mktemp("whole") / "run", quiet=True)


def test_a_run_learns_and_leaves_what_a_run_leaves(run: RunDirectory) -> None:
    losses = run.series("loss").values
    validation = run.series("validation/loss").values
    assert losses[-5:].mean() < 0.8 * losses[:3].mean() and validation[-1] < validation[0]
    final, plan = run.final(), run.plan()
    assert set(final) >= {"validation/shapes/loss", "validation/plain/loss"}
    assert not any("bits_per_byte" in name for name in final)
    assert plan["model"] == {
        "type": "vit", "layers": 2, "width": 16, "context": PATCHES, "image": SIZE, "patch": 4, "channels": 3
    }  # fmt: skip
    assert plan["domains"]["shapes"]["train"]["tokens"] == PATCHES * plan["domains"]["shapes"]["train"]["documents"]
    assert plan["hashes"]["tokenizer"] is None and not run.tokenizer_path.exists()
    assert plan["epochs"]["plain"] == pytest.approx(40 * 8 / 3 / plan["domains"]["plain"]["train"]["documents"])
    assert run.samples() == [] and run.status() == "done"
    report = run.report_path.read_text()
    assert "Validation loss" in report and "bits per byte" not in report
    card = (run.model_path / "README.md").read_text()
    assert "AutoImageProcessor" in card and "AutoTokenizer" not in card
    shown = show_data(make_recipe(image_data()), rows=2)
    assert shown[0]["documents"][0].startswith("shapes:") and "3x16x16 pixels" in shown[0]["text"]


def test_what_check_says_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    plain = image_plan().plain()
    for piece in views.plan(plain):
        Console(width=120, theme=THEME).print(piece)
    told = capsys.readouterr().out
    assert "vit, 2 layers, width 16, context 16" in told and "image" in told and "channels" in told


def test_the_export_is_one_of_transformers(run: RunDirectory, tmp_path: Path) -> None:
    folder = export_run(run, tmp_path / "export", step=40)
    pixels = torch.from_numpy(pictures(4).transpose(0, 3, 1, 2).copy())
    subject = subject_of(run)
    assert isinstance(subject, ImageSubject)
    whole, patches = subject.features(pixels)
    for path in (run.model_path, folder):
        model = AutoModel.from_pretrained(path, add_pooling_layer=False)
        plain = AutoModel.from_pretrained(path)  # a fresh pooler beside what was trained
        processor = AutoImageProcessor.from_pretrained(path)
        inputs = processor(list(pixels.permute(0, 2, 3, 1).numpy()), return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state
            assert torch.allclose(plain(**inputs).last_hidden_state, states, atol=1e-6)
        assert torch.allclose(states[:, 0], whole, atol=1e-5)
        assert torch.allclose(states[:, 1:].unflatten(1, (4, 4)), patches, atol=1e-5)
    assert modality_of(load_run_model(run, 20)[0].config).kind == "image"
    assert not torch.equal(next(load_run_model(run, 20)[0].parameters()), next(load_run_model(run)[0].parameters()))
    with pytest.raises(RequestError, match="no model of text"):
        ft.sample(run, ["The "])
    with pytest.raises(RequestError, match="names no tasks"):
        evaluate(run)


def test_the_subject_reads_other_sizes_and_leaves_the_mode(run: RunDirectory) -> None:
    subject = subject_of(run)
    subject.model.train()
    whole, patches = subject.features(torch.from_numpy(pictures(2, 0, (3, 24, 32))))
    assert whole.shape == (2, 16) and patches.shape == (2, 6, 8, 16) and subject.model.training


def test_a_run_goes_on_from_the_model_of_another(run: RunDirectory, tmp_path: Path) -> None:
    data = image_data(budget={"steps": 2}, model={"kind": "pretrained", "path": str(run.model_path)})
    first = ft.run(make_recipe(data), out=tmp_path / "loaded", quiet=True)
    assert first.metrics()[0]["validation/loss"] < 0.9 * run.metrics()[0]["validation/loss"]
    branch = ft.run(
        make_recipe(image_data(budget={"steps": 2})), out=tmp_path / "b", start_from=str(run.path), quiet=True
    )
    assert branch.plan()["parent"]["step"] == 40
    with pytest.raises(RequestError, match="reads images, which are as many patches"):
        image_plan(model={**data["model"], "context": 16})


def test_killed_in_the_middle_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = make_recipe(image_data())
    whole = ft.run(recipe, out=tmp_path / "whole", quiet=True)
    ft.run(recipe, out=tmp_path / "cut", quiet=True, until=0.5)
    cut = ft.run(recipe, out=tmp_path / "cut", quiet=True)
    weights = [(run.model_path / "model.safetensors").read_bytes() for run in (whole, cut)]
    assert weights[0] == weights[1]
    assert whole.metrics()[-1] == cut.metrics()[-1]
    plan = cut.plan()
    plan["hashes"]["corpus"]["shapes"] = "other"
    cut.plan_path.write_text(json.dumps(plan))
    cut.result_path.unlink()
    with pytest.raises(RequestError, match=r"The data of .* changed"):
        ft.run(recipe, out=tmp_path / "cut", quiet=True)


def test_the_loss_knows_nothing_of_micro_batches() -> None:
    whole, pieces = image_trainer(), image_trainer(batch={"tokens": 8 * PATCHES, "micro": 3 * PATCHES})
    for _ in range(4):
        one, other = whole.train_step(), pieces.train_step()
        assert math.isclose(one["loss"], other["loss"], rel_tol=1e-5)


def test_the_throwaway_objective_keeps_the_promises_of_objectives() -> None:
    check_part(Reconstruction(), image_data())


# What is refused ---------------------------------------------------------------------------------------------------


def refused(words: str, data: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=words) as error:
        make_plan(make_recipe(data), Group())
    assert "\n" not in str(error.value)


def test_text_and_images_do_not_mix(tmp_path: Path) -> None:
    archive, lines = save_npz(tmp_path / "x.npz", pictures(30)), tmp_path / "x.jsonl"
    lines.write_text('{"text": "some words to learn from"}\n' * 3)
    (tmp_path / "photos").mkdir()
    save_npz(tmp_path / "photos" / "a.npz", pictures(3))
    for path in (archive, "builtin:shapes", str(tmp_path / "photos")):
        refused("holds images, but objective 'causal_lm' learns from text", tiny_data(corpus={"a": path}))
    for path in (str(lines), "builtin:english"):
        refused("holds text, but objective 'test_reconstruction' learns from images", image_data(corpus={"a": path}))
    refused(
        "corpus.a: .*x.npz holds images", tiny_data(corpus={"a": {"path": "builtin:english", "validation": archive}})
    )
    refused("trains a decoder, but model 'vit' is a model of images", tiny_data(model=image_data()["model"]))
    refused("trains a model of images, but model 'llama' is a decoder", image_data(model=tiny_data()["model"]))
    refused("tokenizer: tokenizer 'byte' works on text, but objective", image_data(tokenizer="byte"))
    refused("documents: separate is a setting of text", image_data(documents="separate"))
    items = {"questions": {"kind": "completion_loss", "path": str(lines)}}
    refused("tasks.questions: task 'completion_loss' works on text", image_data(tasks=items))


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    model = image_data()["model"]
    with pytest.raises(RequestError, match="16 pixels is not whole patches of 5; image should be 15 or 20"):
        make_recipe(image_data(model={**model, "patch": 5}))
    with pytest.raises(RequestError, match="context and tied are of models of text"):
        make_recipe(image_data(model={**model, "context": 64}))
    refused(
        r"its images have 3 channels, and the model reads 1 .model.channels.",
        image_data(model={**model, "channels": 1}),
    )
    grey = save_npz(tmp_path / "grey.npz", pictures(30, 0, (SIZE, SIZE)))
    refused("its images have 1 channel, and the model reads 3", image_data(corpus={"a": grey}))
    assert image_plan(corpus={"a": grey}, model={**model, "channels": 1}).rows == 8
    refused("less than one window of 16", image_data(batch={"tokens": PATCHES - 1}))


def test_images_of_feedback_and_tasks_are_not_in_the_corpus(tmp_path: Path) -> None:
    images = pictures(40)
    masks = np.zeros((40, SIZE, SIZE), np.int64)
    corpus = save_npz(tmp_path / "corpus.npz", images)
    labelled = save_npz(tmp_path / "labelled.npz", np.concatenate([images[7:8], pictures(5, 1)]), masks=masks[:6])
    feedback = {"labelled": {"kind": "segmentation", "path": labelled}}
    refused(
        r"pixel for pixel.*of feedback labelled is corpus.npz:7 of 'a'",
        image_data(corpus={"a": corpus}, feedback=feedback),
    )
    plan = image_plan(corpus={"a": corpus}, feedback=feedback, overlap="warn")
    assert any("corpus.npz:7" in note for note in plan.notes)
    held = save_npz(tmp_path / "held.npz", pictures(5, 1), masks=masks[:5])
    assert image_plan(corpus={"a": corpus}, feedback={"held": {"kind": "segmentation", "path": held}}).notes == []
