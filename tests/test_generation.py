from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy import stats

from foretrain.errors import RequestError
from foretrain.generation import _Row, _Sampler, forbidden, generate, window_start
from foretrain.subject import Subject
from foretrain.tokens.reserved import assemble, byte_level
from tests.tasks.subjects import byte_tokenizer, subject, word_tokenizer

PROMPTS = ["a", "some longer prompt", "", "abc abc", "x" * 30]


def naive_greedy(one: Subject, prompt: str, tokens: int) -> list[int]:
    """The whole window is read anew for every token; nothing is padded, batched or cached."""
    ids = one.tokenizer.encode([prompt])[0] or [one.tokenizer.bos]
    ban = forbidden(one.tokenizer, 390)
    drawn: list[int] = []
    for _ in range(tokens):
        window = (ids + drawn)[window_start(len(ids) + len(drawn), one.context) :]
        with torch.no_grad():
            logits = one.model.eval()(torch.tensor([window]), use_cache=False).logits[0, -1]
        token = int(logits.masked_fill(ban, -torch.inf).argmax())
        if token == one.tokenizer.eos:
            break
        drawn.append(token)
    return drawn


class Uncached(Subject):
    def cache(self) -> None:
        return None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("context", [48, 12])
def test_greedy_equals_reading_everything_anew(kind: str, context: int) -> None:
    one = subject(kind, context=context)
    found = generate(one, PROMPTS, tokens=30)
    for prompt, generated in zip(PROMPTS, found, strict=True):
        assert list(generated.ids) == naive_greedy(one, prompt, 30)
        read = len(prompt or " ") + len(generated.ids) - (generated.ended != "eos")
        assert generated.truncated == (read > context)
    assert any(generated.truncated for generated in found) == (context == 12 or len("x" * 30) + 29 > context)


def test_a_row_that_has_ended_stays_within_the_positions() -> None:
    prompts = ["long prompt", "a", "b", "c"]
    for seed in range(50):  # A model that begins the first text with a letter of no other text.
        one = subject("gpt2", context=12, seed=seed)
        whole = generate(one, prompts, tokens=10)
        stop = whole[0].text[:1]
        if stop and stop != "\ufffd" and not any(stop in other.text for other in whole[1:]):
            break
    cut = generate(one, prompts, tokens=10, stop=[stop])
    assert cut[0].ended == "stop" and len(cut[0].ids) == 1 and cut[1:] == whole[1:]


def test_the_cache_is_used_and_changes_nothing() -> None:
    one = subject()
    lengths: list[int] = []
    one.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    found = generate(one, PROMPTS[:2], tokens=10)
    assert Counter(lengths)[1] >= 8 and sum(lengths) < 80
    plain = Uncached(one.model, one.tokenizer, one.context)
    assert generate(plain, PROMPTS[:2], tokens=10) == found


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_prompts_result_does_not_depend_on_its_batch(temperature: float) -> None:
    settings = {"tokens": 20, "temperature": temperature, "seed": 5, "top_p": 0.95}
    together = generate(subject(), PROMPTS, **settings)
    assert [generate(subject(), [prompt], **settings)[0] for prompt in PROMPTS] == together
    assert generate(subject(batch_tokens=60), PROMPTS[::-1], **settings)[::-1] == together


def test_seed_decides_and_equal_prompts_differ() -> None:
    first = generate(subject(), ["a", "a"], tokens=12, temperature=1.0, seed=1)
    assert first == generate(subject(), ["a", "a"], tokens=12, temperature=1.0, seed=1)
    assert first[0].ids != first[1].ids
    assert first[0].ids != generate(subject(), ["a"], tokens=12, temperature=1.0, seed=2)[0].ids
    state = torch.get_rng_state()
    generate(subject(), ["a"], tokens=3, temperature=1.0)
    assert torch.equal(state, torch.get_rng_state())


def drawn(logits: torch.Tensor, count: int, **settings: float | int) -> Counter[int]:
    import numpy as np

    sampler = _Sampler(byte_tokenizer(), **{"temperature": 1.0, "top_k": None, "top_p": None, **settings})  # type: ignore[arg-type]
    row = _Row("", [], 0, np.random.Generator(np.random.Philox(key=9)))
    return Counter(sampler.draw(logits[None].expand(count, -1), [row] * count))


def test_draws_follow_the_distribution() -> None:
    logits = torch.full((390,), -torch.inf)
    logits[200:205] = torch.tensor([0.0, 1.0, 2.0, 1.5, -1.0])
    count = 20_000
    for temperature in (1.0, 0.5):
        found = drawn(logits, count, temperature=temperature)
        expected = (logits[200:205].double() / temperature).softmax(0) * count
        assert stats.chisquare([found[i] for i in range(200, 205)], expected.numpy()).pvalue > 0.01
    assert set(drawn(logits, 2000, top_k=2)) == {202, 203}
    shares = logits[200:205].softmax(0)  # 0.06, 0.17, 0.46, 0.28, 0.02
    assert set(drawn(logits, 2000, top_p=float(shares[2]) + 0.01)) == {202, 203}
    assert set(drawn(logits, 200, top_p=float(shares[2]) - 0.01)) == {202}
    assert set(drawn(logits, 4000, top_k=3, top_p=0.9)) == {201, 202, 203}
    assert set(drawn(logits, 200, top_p=1e-9)) == {202}


def test_reserved_tokens_are_never_drawn() -> None:
    one = subject()
    head = one.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[1:128] = head.weight[200] * 0 + 1.0
        head.weight[384:] = 1.0  # Rows that stand for nothing: the tokenizer has 384 ids.
    ids = generate(one, ["abc", "zz"], tokens=40, temperature=2.0, seed=1)
    assert all(128 <= token < 384 for generated in ids for token in generated.ids)
    ban = forbidden(byte_tokenizer(), 390)
    assert not ban[0] and ban[1:128].all() and not ban[128:384].any() and ban[384:].all()


class Script(Subject):
    """Always continues with the next byte of a text, whatever the prompt."""

    script = b""
    prompt_length = 0

    def cache(self) -> None:
        return None

    def logits(self, ids, mask=None, cache=None, places=None):  # type: ignore[no-untyped-def]
        rows = ids.shape[0]
        logits = torch.zeros(rows, 390)
        for i in range(rows):
            place = int(mask[i].sum()) - self.prompt_length
            logits[i, 128 + self.script[place] if place < len(self.script) else 0] = 9.0
        return logits


def scripted(text: str, prompt: str) -> Script:
    one = subject(context=200)
    made = Script(one.model, one.tokenizer, 200)
    made.script, made.prompt_length = text.encode(), len(prompt.encode())
    return made


def test_eos_and_stop_strings_end_a_text() -> None:
    one = scripted("Antwort: 42\nQuestion: ü?", "Q")
    (ended,) = generate(one, ["Q"], tokens=99)
    assert (ended.text, ended.ended, len(ended.ids)) == ("Antwort: 42\nQuestion: ü?", "eos", 25)
    assert ended.plain() == {"prompt": "Q", "text": ended.text}
    (ended,) = generate(one, ["Q"], tokens=99, stop=["\nQuest", "\n\n"])
    assert (ended.text, ended.ended) == ("Antwort: 42", "stop")
    assert len(ended.ids) == len("Antwort: 42\nQuest")
    (ended,) = generate(one, ["Q"], tokens=99, stop=["ü"])
    assert (ended.text, ended.ended) == ("Antwort: 42\nQuestion: ", "stop")
    (ended,) = generate(one, ["Q"], tokens=4, stop=["x"])
    assert (ended.text, ended.ended) == ("Antw", "length")
    (ended,) = generate(scripted("", "Q"), ["Q"], tokens=4)
    assert (ended.text, ended.ended, ended.ids) == ("", "eos", ())


def test_a_stop_string_across_tokens_of_several_letters() -> None:
    tokenizer = word_tokenizer()
    one = subject(tokenizer=tokenizer)
    (whole,) = generate(one, ["ab"], tokens=30)
    inner = whole.text[4:7]
    (cut,) = generate(one, ["ab"], tokens=30, stop=[inner])
    assert cut.text == whole.text[: whole.text.index(inner)] and cut.ended == "stop"


def test_window_start_moves_by_halves() -> None:
    starts = [window_start(length, 8) for length in range(1, 22)]
    assert starts == [0] * 8 + [4] * 4 + [8] * 4 + [12] * 4 + [16]
    assert all(1 <= length - window_start(length, 1) <= 1 for length in range(1, 5))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"tokens": 0}, "tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": "text"}, "stop"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_settings_out_of_range(settings: dict, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        generate(subject(), ["a"], **settings)


def test_an_encoder_writes_nothing() -> None:
    with pytest.raises(RequestError, match="encoder"):
        generate(subject("bert"), ["a"])


def test_no_prompts() -> None:
    assert generate(subject(), []) == []


def test_an_empty_prompt_needs_a_token_to_start_from() -> None:
    bare = assemble([], byte_level(False))
    bare.fast.bos_token = bare.fast.eos_token = None
    with pytest.raises(RequestError, match="neither a BOS"):
        generate(subject(tokenizer=bare), [""], tokens=2)
