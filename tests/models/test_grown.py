"""A grown model in a recipe: what it may grow to, what is refused, that runs of it resume and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.hashing import seed_from
from foretrain.models.grown import Grown
from foretrain.probes._windows import windows_ahead
from foretrain.running import run
from tests.steering.teachers import save_teacher
from tests.tiny import CONTEXT, tiny_data, tiny_plan, tiny_recipe, tiny_trainer

SPECIAL = {"bos": 0, "eos": 0, "pad": None, "mask": None}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """llama: 2 layers of 32 with 2 heads, feed-forward 64."""
    return save_teacher(tmp_path_factory.mktemp("source"), steps=12)


def model(source: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "grown", "path": source, "width": 64, "layers": 4, **fields}


def test_sizes_follow_the_width(source: str) -> None:
    plan = tiny_plan(model=model(source))
    config: Any = plan.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (4, 64, 4)
    assert (config.num_key_value_heads, config.intermediate_size, config.head_dim) == (4, 128, 16)
    assert plan.context == CONTEXT
    told = " ".join(plan.notes)
    assert f"grown from {source}: 2 layers of 32 with 2 heads become 4 layers of 64 with 4 heads" in told


def test_a_wider_model_starts_where_the_small_one_ended(source: str) -> None:
    wide, small = tiny_trainer(model=model(source, layers=None)), AutoModelForCausalLM.from_pretrained(source)
    ids = wide.stream.batch()["tokens"][:, :CONTEXT]
    with torch.no_grad():
        ours, theirs = (each(input_ids=ids).logits for each in (wide.learner.model.eval(), small))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_probe_says_so(source: str, tmp_path: Path) -> None:
    def figures(**fields: Any) -> dict[str, float]:
        one = tiny_trainer(
            model=model(source, **fields),
            models={"small": source},
            probes=[{"kind": "function_preservation", "model": "small", "rows": 2}],
        )
        return one.probes[0].measure(one.context)

    kept, lost = figures(layers=None), figures(rules=["advanced_knowledge"], layers=2)
    assert abs(kept["kl"]) < 1e-7 and kept["difference"] < 1e-5 and kept["agreement"] == 1
    assert lost["kl"] > 1e-3 and lost["difference"] > 1e-2
    assert kept["reference_loss"] == lost["reference_loss"]
    one = tiny_trainer(
        models={"small": source}, probes=[{"kind": "function_preservation", "model": "small", "rows": 3}]
    )
    # The divergence stated anew, of a model of its own, from two forward passes.
    found = one.probes[0].measure(one.context)
    total, count, same = 0.0, 0, 0
    for domain in ("prose", "sums"):
        batch = windows_ahead(one.context, domain, torch.arange(3).numpy(), seed_from(0, domain))
        small = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            p, q = (m(input_ids=batch["inputs"]).logits.log_softmax(-1) for m in (small, one.learner.model.eval()))
        total += float((p.exp() * (p - q)).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += p.shape[0] * p.shape[1]
    assert found["kl"] == pytest.approx(total / count, rel=1e-4)
    assert found["agreement"] == pytest.approx(same / count)


def test_a_run_grows_from_a_run_and_exports_an_ordinary_model(tmp_path: Path) -> None:
    small = run(tiny_recipe(budget={"steps": 3}, tokenizer="byte"), out=tmp_path / "small", quiet=True)
    grown = tiny_recipe(
        budget={"steps": 4}, model=model(str(small.path), rules=["advanced_knowledge", "stacking"], tied=False)
    )
    done = run(grown, out=tmp_path / "large", quiet=True)
    assert any("whose training cost" in note for note in done.plan()["notes"])
    plain = AutoModelForCausalLM.from_pretrained(done.model_path)
    assert plain.config.head_dim == 16 and not plain.config.tie_word_embeddings
    ids = torch.arange(CONTEXT)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, load_run_model(done)[0](input_ids=ids).logits)
        # From a checkpoint too, whose weights take the place of those that were grown.
        told = load_run_model(done, 4)[0](input_ids=ids).logits
    torch.testing.assert_close(plain(input_ids=ids).logits, told)
    with pytest.raises(RequestError, match="has not ended"):
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "recipe.yaml").write_text("name: half")
        tiny_plan(model=model(str(tmp_path / "half")))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 16}, "model.width: 16 are fewer than the 32"),
        ({"layers": 1}, "model.layers: 1 are fewer than the 2"),
        ({"heads": 1}, "model.heads: 1 are fewer than the 2"),
        ({"feedforward": 63}, "model.feedforward: 63 are fewer than the 64"),
        ({"width": 40}, "model.heads: .* has 2 of them at a width of 32, which is no whole number at 40"),
        ({"rules": ["function_preserving"]}, "no rule makes the network deeper: layers stays at 2, and 4 are wanted"),
        ({"rules": ["stacking"]}, "no rule makes the network wider: width stays at 32, and 64 are wanted"),
    ],
)
def test_sizes_that_cannot_be_grown_to(source: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        tiny_plan(model={**model(source), **fields})


def test_heads_of_learned_positions_stay_whole(tmp_path: Path) -> None:
    folder = save_teacher(
        tmp_path, model={"kind": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": CONTEXT, "tied": True}
    )
    with pytest.raises(RequestError, match="16 features each, so a width of 64 has 4 heads, not 8"):
        tiny_plan(model=model(folder, heads=8))
    with pytest.raises(RequestError, match=r"no whole number \(40 / 16\) of heads"):
        tiny_plan(model=model(folder, width=40, heads=3, feedforward=160))
    assert tiny_plan(model=model(folder)).config.num_attention_heads == 4


def test_groups_of_heads_stay_whole(tmp_path: Path) -> None:
    small = {"kind": "llama", "layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "context": CONTEXT, "tied": False}
    folder = save_teacher(tmp_path, model=small)
    with pytest.raises(RequestError, match="7 heads are not whole groups of 2"):
        tiny_plan(model=model(folder, heads=7))
    with pytest.raises(RequestError, match="cannot become the embedding"):
        tiny_plan(model=model(folder, tied=True))
    config: Any = tiny_plan(model=model(folder, heads=6)).config
    assert (config.num_key_value_heads, config.head_dim) == (3, 8)


def test_other_families_and_tokenizers_are_refused(source: str, tmp_path: Path) -> None:
    neox = GPTNeoXConfig(
        vocab_size=384, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    GPTNeoXForCausalLM(neox).save_pretrained(tmp_path / "neox")
    tiny_trainer().context.tokenizer.save(tmp_path / "neox")
    with pytest.raises(RequestError, match="type 'gpt_neox' cannot be grown; those of types llama, gpt2, bert can"):
        tiny_plan(model=model(str(tmp_path / "neox")))
    for tokenizer in ({"kind": "bpe", "vocabulary": 384}, {"kind": "bpe", "vocabulary": 400}):
        other = save_teacher(tmp_path / str(tokenizer["vocabulary"]), tokenizer=tokenizer)
        with pytest.raises(RequestError, match="another tokenizer than this run's"):
            tiny_plan(model=model(other), tokenizer="byte")
    bert = {"kind": "bert", "layers": 1, "width": 32, "heads": 2, "context": CONTEXT}
    part: Any = tiny_recipe(model=bert).model
    part.build(part.config(384, {}), 0).save_pretrained(tmp_path / "bert")
    with pytest.raises(RequestError, match="trains a decoder, but model 'grown' is an encoder"):
        tiny_plan(model=model(str(tmp_path / "bert")))
    with pytest.raises(RequestError, match="there is no folder"):
        tiny_plan(model=model(str(tmp_path / "nowhere" / "at" / "all")))


def test_a_rule_that_is_not_there_is_named(source: str) -> None:
    data = tiny_data(model=model(source, rules=["function_preservin"]))
    with pytest.raises(RequestError, match="did you mean 'function_preserving'"):
        tiny_recipe(**data)
    assert [rule.kind for rule in Grown(path=source).rules] == ["function_preserving", "stacking"]
