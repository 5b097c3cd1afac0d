"""The dial: any text and any time give a recipe that holds together; choices move the right way."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from foretrain import dial
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.models.presets import PRESETS
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe

MINUTES = some.floats(0.1, 10_000)
BYTES = some.floats(1, 1e13)
TOKENS = some.floats(1e3, 1e13)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def prose(size: int) -> str:
    """Text of about so many characters, in paragraphs that differ."""
    lines = (f"On day {number} the {number * 7919 % 1009} ships came in.\n\n" for number in range(size // 30))
    return "".join(lines)


def written(path: Path, size: int) -> Path:
    path.write_text(prose(size), encoding="utf-8")
    return path


# Each choice ----------------------------------------------------------------------------------------------------------


@given(BYTES, BYTES)
def test_more_text_has_no_smaller_vocabulary_and_no_larger_share_held_out(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert 512 <= dial.vocabulary_for(less) <= dial.vocabulary_for(more) <= 32_768
    assert 0.1 >= dial.validation_for(less) >= dial.validation_for(more) >= 0.01


@given(MINUTES, MINUTES, some.sampled_from([512, 1024, 4096, 32_768]), TOKENS)
def test_more_time_has_no_smaller_model(one: float, other: float, vocabulary: int, unique: float) -> None:
    sizes = [
        dial.parameters(PRESETS[dial.preset_for(dial.flops_for(minutes), unique, vocabulary)], vocabulary)
        for minutes in sorted((one, other))
    ]
    assert sizes[0] <= sizes[1]


def test_with_enough_text_a_model_gets_20_tokens_per_parameter() -> None:
    for name, preset in PRESETS.items():
        compute = 6 * 20 * float(preset.parameters) ** 2
        assert dial.preset_for(compute, 1e15, preset.vocabulary) == name


def test_short_text_is_not_read_ever_again_by_a_small_model() -> None:
    compute, vocabulary = 4.5e13, 1024

    def chosen(unique: float) -> int:
        return dial.parameters(PRESETS[dial.preset_for(compute, unique, vocabulary)], vocabulary)

    plenty, short, tiny = chosen(1e9), chosen(1e5), chosen(1e3)
    assert compute / (6 * plenty) / 1e5 > 16 > 0.5 * compute / (6 * short) / 1e5
    assert plenty < short
    assert tiny == min(dial.parameters(preset, vocabulary) for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("compute", "unique", "vocabulary", "name"),
    [(3e12, 900e3, 1024, "0.2M"), (1.2e13, 900e3, 1024, "0.2M"), (1.8e13, 660e3, 4096, "0.2M")],
)
def test_picks_what_was_measured_best(compute: float, unique: float, vocabulary: int, name: str) -> None:
    # On 2.4 MB of English; the figures stand in docs/dial.md.
    assert dial.preset_for(compute, unique, vocabulary) == name


@given(TOKENS, TOKENS)
def test_more_tokens_have_no_smaller_batches_and_no_fewer_steps(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert 256 <= dial.batch_for(less, 256) <= dial.batch_for(more, 256)
    # Twice the tokens or more are more steps, even where the batch is doubled.
    if more >= 2.001 * less:
        assert less / dial.batch_for(less, 256) <= 1.001 * more / dial.batch_for(more, 256)


def test_wider_models_learn_at_lower_rates_like_those_that_were_published() -> None:
    rates = [dial.learning_rate(preset.width) for preset in PRESETS.values()]
    assert rates == sorted(rates, reverse=True)
    # Within about 2 times GPT-3 at a width of 768 (6e-4, arXiv 2005.14165) and LLaMA at 4096 (3e-4, 2302.13971).
    assert 6e-4 / 2 <= dial.learning_rate(768) <= 6e-4 * 2
    assert 3e-4 / 2 <= dial.learning_rate(4096) <= 3e-4 * 2
    # Measured: at 64 and at 192 the better of two rates a factor of two apart.
    assert 4e-3 < dial.learning_rate(64) < 1.6e-2
    assert 1.4e-3 < dial.learning_rate(192) < 2.9e-3


@given(some.sampled_from(sorted(PRESETS)), some.sampled_from([512, 4096, 32_768]))
def test_parameters_at_another_vocabulary(name: str, vocabulary: int) -> None:
    preset = PRESETS[name]
    tables = (vocabulary - preset.vocabulary) * preset.width * (1 if preset.tied else 2)
    assert dial.parameters(preset, vocabulary) - preset.parameters == tables
    assert dial.parameters(preset, preset.vocabulary) == preset.parameters


@given(TOKENS)
def test_evaluations_cost_little(tokens: float) -> None:
    found = dial.evaluation_for(tokens)
    assert 8192 <= found <= 131_072
    assert found == 8192 or found <= tokens / 100


# The recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [0.1, 1.0, 5.0, 60.0, 1440.0])
@pytest.mark.parametrize("size", [1, 1_000, 1_000_000, 20_000_000_000])
def test_valid_for_any_size_of_text_and_time(size: int, minutes: float, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    with file.open("wb") as handle:
        handle.truncate(size)  # takes no room on disk
    recipe = make_recipe(dial.recipe_for(file, minutes))
    assert recipe.budget.minutes == minutes
    context, batch = int(recipe.model.context or 0), recipe.batch.tokens  # type: ignore[attr-defined]
    assert batch % context == 0 and batch & (batch - 1) == 0
    assert str(recipe.corpus["text"].path) == str(file)


@pytest.mark.parametrize("size", [8_000, 60_000])
def test_short_texts_can_be_trained_on(size: int, tmp_path: Path) -> None:
    plan = make_plan(make_recipe(dial.recipe_for(written(tmp_path / "short.txt", size), 0.1)), Group())
    assert plan.sets("train")["text"].tokens > plan.window
    assert next(iter(plan.stream().batch()["tokens"])).shape == (plan.window,)


def test_five_minutes_on_two_cores_and_two_megabytes(tmp_path: Path) -> None:
    data = dial.recipe_for(written(tmp_path / "notes.txt", 2_000_000), None)
    assert data["name"] == "notes"
    assert data["budget"] == {"minutes": 5.0}
    assert data["tokenizer"]["vocabulary"] == 4096
    assert data["model"]["preset"] == "1M"
    assert data["batch"]["tokens"] in (2048, 4096)


def test_the_same_command_makes_the_same_recipe(tmp_path: Path) -> None:
    # Resuming compares recipes: nothing that is measured may decide.
    file = written(tmp_path / "notes.txt", 10_000)
    assert dial.recipe_for(file, 3) == dial.recipe_for(file, 3)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("notes.txt", "notes"),
        ("my notes (2).txt", "my-notes-2"),
        ("заметки.txt", "run"),
        ("日本 v2.txt", "v2"),
        ("-.txt", "run"),
        (".hidden.txt", "hidden"),
        ("a.b.txt", "a"),
    ],
)
def test_name_of_the_run(file: str, name: str, tmp_path: Path) -> None:
    data = dial.recipe_for(written(tmp_path / file, 1_000), 1)
    assert data["name"] == name
    assert make_recipe(data).name == name


def test_a_folder_counts_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "my texts.d"
    (folder / "deep").mkdir(parents=True)
    written(folder / "a.txt", 3_000)
    written(folder / "deep" / "b.txt", 6_000)
    (folder / "picture.png").write_bytes(bytes(100_000))
    sizes = [(folder / name).stat().st_size for name in ("a.txt", "deep/b.txt")]
    assert dial.text_bytes(folder) == sum(sizes)
    assert make_recipe(dial.recipe_for(folder, 1)).name == "my-texts-d"


def test_compressed_text_counts_unpacked(tmp_path: Path) -> None:
    text = prose(300_000).encode()
    packed = tmp_path / "notes.txt.gz"
    packed.write_bytes(gzip.compress(text))
    assert math.isclose(dial.text_bytes(packed), 3 * packed.stat().st_size)
    assert dial.name_for(packed) == "notes"


def test_more_threads_are_more_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    two = dial.flops_for(5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert dial.flops_for(5) == 4 * two


def test_a_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    known = dial.flops_for(5)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some New GPU")
    assert known > dial.flops_for(5) > 1e15
    make_recipe(dial.recipe_for(written(tmp_path / "notes.txt", 5_000), 5))


# Errors ---------------------------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"There is no file .*nots\.txt"):
        dial.recipe_for(tmp_path / "nots.txt", 5)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(RequestError, match="is empty"):
        dial.recipe_for(tmp_path / "empty.txt", 5)


def test_a_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(RequestError, match="only files of other kinds"):
        dial.recipe_for(tmp_path, 5)
