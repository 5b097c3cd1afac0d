"""Emulated fine-tuning against the formula written out token by token, and the cases that it must reduce to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.flops import count
from foretrain.generation import generate
from foretrain.merging.base import Merged
from foretrain.merging.emulated_fine_tuning import EmulatedFineTuning
from foretrain.merging.evaluating import evaluate_merge
from foretrain.run_directory import RunDirectory
from foretrain.subject import Subject
from foretrain.tasks.likelihood import Pair, log_likelihoods
from tests.merging.folders import changed, load, make, save
from tests.tasks.subjects import byte_tokenizer

IDS = torch.arange(3 * 9).reshape(3, 9) % 200 + 40
MASK = torch.arange(9) < torch.tensor([9, 5, 7])[:, None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A large base, a small one, and two models tuned from the small one."""
    folder = tmp_path_factory.mktemp("emulated")
    found = {"large": save(make(5, width=32), folder / "large"), "base": save(make(0, layers=2), folder / "base")}
    return found | {f"tuned{seed}": changed(found["base"], folder / f"tuned{seed}", seed, 0.1) for seed in (1, 2)}


def emulated(folders: dict[str, Path], large: str = "large", tuned: tuple[str, ...] = ("tuned1",), **s: Any) -> Merged:
    named = {"base": str(folders["base"]), "tuned": [str(folders[each]) for each in tuned]}
    return EmulatedFineTuning(large=str(folders[large]), **named, **s).merge([])  # type: ignore[arg-type]


def logs(folder: Path, ids: Tensor) -> Tensor:
    """Log-probabilities of one row, by transformers alone."""
    with torch.no_grad():
        return load(folder)(input_ids=ids[None]).logits[0].double().log_softmax(-1)


def test_a_base_of_the_same_size_is_the_tuned_model(folders: dict[str, Path]) -> None:
    merged = emulated(folders, large="base")
    found = merged.subject.logits(IDS, MASK)
    for row, length in enumerate((9, 5, 7)):
        expected = logs(folders["tuned1"], IDS[row, :length])
        torch.testing.assert_close(found[row, :length].double(), expected, rtol=0, atol=1e-5)
        assert not torch.allclose(expected, logs(folders["base"], IDS[row, :length]), atol=0.1)
    subject = Subject(load(folders["tuned1"]), byte_tokenizer(), 48)
    texts = [generate(each, ["1 + 1 =", "The "], tokens=12) for each in (merged.subject, subject)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.7), (2.5, -0.3)])
def test_the_sum_is_over_logs_and_normalised(folders: dict[str, Path], weights: tuple[float, float]) -> None:
    merged = emulated(folders, tuned=("tuned1", "tuned2"), weights=list(weights))
    assert merged.inference == 4 and merged.exported is None
    found = merged.subject.logits(IDS, MASK)
    for row, length in enumerate((9, 5, 7)):
        large, base, one, two = (
            logs(folders[each], IDS[row, :length]) for each in ("large", "base", "tuned1", "tuned2")
        )
        # Raw products of probabilities, normalised after: the method's own statement.
        product = large.exp() * (one.exp() / base.exp()) ** weights[0] * (two.exp() / base.exp()) ** weights[1]
        expected = (product / product.sum(-1, keepdim=True)).log()
        torch.testing.assert_close(found[row, :length].double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[MASK].exp().sum(-1), torch.ones(int(MASK.sum())))
    packed = merged.model(input_ids=IDS[:1]).logits.detach()
    torch.testing.assert_close(packed, found[:1], rtol=0, atol=1e-5)
    pair = Pair(IDS[0, :4].tolist(), IDS[0, 4:].tolist())
    hits = found[0, 3:-1].gather(1, IDS[0, 4:, None]).sum()
    assert log_likelihoods(merged.subject, [pair])[0].log == pytest.approx(float(hits), abs=1e-4)


def test_no_weight_is_the_large_model(folders: dict[str, Path]) -> None:
    found = emulated(folders, weights=[0.0]).subject.logits(IDS[:1])[0]
    torch.testing.assert_close(found.double(), logs(folders["large"], IDS[0]), rtol=0, atol=1e-5)


def test_a_nucleus_leaves_other_tokens_alone(folders: dict[str, Path]) -> None:
    found = emulated(folders, nucleus=0.6).subject.logits(IDS[:1])[0].double()
    large, base, tuned = (logs(folders[each], IDS[0]) for each in ("large", "base", "tuned1"))
    for place in range(9):
        order, spent, inside = large[place].argsort(descending=True).tolist(), 0.0, []
        for token in order:
            inside.append(token)
            spent += float(large[place, token].exp())
            if spent >= 0.6:
                break
        expected = large[place].clone()
        expected[inside] += (tuned - base)[place, inside]
        torch.testing.assert_close(found[place], expected.log_softmax(-1), rtol=0, atol=1e-4)
        outside = [token for token in order if token not in inside][:2]
        ratio = found[place, outside[0]] - found[place, outside[1]]
        torch.testing.assert_close(ratio, large[place, outside[0]] - large[place, outside[1]], rtol=0, atol=1e-4)


def test_each_model_has_its_own_cache(folders: dict[str, Path]) -> None:
    subject = emulated(folders).subject
    cache = subject.cache()
    assert isinstance(cache, list) and len(cache) == 3
    subject.logits(IDS, MASK, cache)
    after = torch.tensor([[70], [71], [72]])
    found = subject.logits(after, torch.cat([MASK, torch.ones(3, 1, dtype=torch.bool)], 1), cache)
    for row, length in enumerate((9, 5, 7)):
        whole = torch.cat([IDS[row, :length], after[row]])
        expected = subject.logits(whole[None])[0, -1]
        torch.testing.assert_close(found[row, 0], expected, rtol=0, atol=1e-4)


def test_the_cost_is_a_forward_pass_of_each(folders: dict[str, Path]) -> None:
    merged = emulated(folders)
    ids = torch.arange(48)[None] + 40
    large = count(lambda: load(folders["large"])(input_ids=ids)) / 48
    assert merged.told["figures"]["flops_per_token"] == pytest.approx(count(lambda: merged.model(input_ids=ids)) / 48)
    assert merged.told["figures"]["times_large"] == pytest.approx(merged.told["figures"]["flops_per_token"] / large)
    assert [each["parameters"] for each in merged.told["forwards"]] == [
        load(folders[each]).num_parameters() for each in ("large", "base", "tuned1")
    ]


def test_runs_are_judged_with_it(runs: list[RunDirectory], wider: RunDirectory, tmp_path: Path) -> None:
    """The run is the large model: with itself for a base it has the figures of the tuned one."""
    own, other = str(runs[0].path), str(runs[1].path)
    part = EmulatedFineTuning(base=own, tuned=[other])
    part.check(runs[0].load_recipe())
    result, expected = evaluate_merge(part, runs[:1], tmp_path / "merged"), runs[1].result() or {}
    assert result["validation"] == pytest.approx(expected["validation"], rel=1e-5)
    assert result["tasks"]["sums"]["loss"]["value"] == pytest.approx(
        expected["tasks"]["sums"]["loss"]["value"], rel=1e-5
    )
    assert result["cost"]["inference"] == 3
    merged = RunDirectory.open(tmp_path / "merged")
    assert merged.final()["merge/times_large"] == pytest.approx(3)
    assert json.loads(merged.merge_path.read_text())["inputs"][0]["name"] == "tiny"
    # A folder without weights is put together again, to be sampled from.
    settings: dict[str, Any] = {"tokens": 6, "temperature": 0.0}
    assert ft.sample(merged, ["1 + 1"], **settings) == ft.sample(runs[1], ["1 + 1"], **settings)
    # Another network, over the same ids, as the large model.
    evaluate_merge(part, [wider], tmp_path / "wider")


def test_what_does_not_fit_is_refused(folders: dict[str, Path], runs: list[RunDirectory], tmp_path: Path) -> None:
    own = str(runs[0].path)
    with pytest.raises(RequestError, match=r"merge\.base: there is no model in .*nowhere"):
        EmulatedFineTuning(base=str(tmp_path / "nowhere"), tuned=[own]).check(runs[0].load_recipe())
    with pytest.raises(ValueError, match="2 weights are given for 1 tuned models"):
        EmulatedFineTuning(base=own, tuned=[own], weights=[1, 1])
    spoken = Path(shutil.copytree(folders["tuned1"], tmp_path / "spoken"))
    tokenizer = json.loads((spoken / "tokenizer.json").read_text())
    swap = {"a": "b", "b": "a"}
    tokenizer["model"]["vocab"] = {swap.get(token, token): n for token, n in tokenizer["model"]["vocab"].items()}
    (spoken / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RequestError, match=r"The tokenizers of merge\.tuned and merge\.base differ"):
        EmulatedFineTuning(base=str(folders["base"]), tuned=[str(spoken)]).check(runs[0].load_recipe())
    with pytest.raises(RequestError, match=r"The tokenizers of merge\.tuned and merge\.large differ"):
        emulated({**folders, "tuned1": spoken})
    more = save(make(vocab_size=400), tmp_path / "more")
    with pytest.raises(RequestError, match="for different numbers of ids"):
        emulated({**folders, "large": more})
    short = save(make(max_position_embeddings=24), tmp_path / "short")
    with pytest.raises(RequestError, match="reads 24 tokens at once, and the large model 48"):
        emulated({**folders, "base": short})
    with pytest.raises(RequestError, match="There is no run to merge"):
        EmulatedFineTuning(base=own, tuned=[own]).merge([])
