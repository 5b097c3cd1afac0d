from __future__ import annotations

import pytest
import torch

from foretrain.errors import RequestError
from foretrain.subject import Subject
from foretrain.tasks.likelihood import Pair, batches, encode_pairs, log_likelihoods, pad_right
from foretrain.tokens.reserved import assemble, byte_level
from tests.tasks.subjects import CONTEXT, byte_tokenizer, subject, word_tokenizer


def naive(one: Subject, prompt: list[int], completion: list[int], context: int) -> tuple[float, int]:
    """One token at a time, each after as much as fits the context."""
    total, hits = 0.0, 0
    whole = prompt + completion
    for place in range(len(prompt), len(whole)):
        with torch.no_grad():
            logits = one.model.eval()(torch.tensor([whole[max(0, place - context) : place]])).logits[0, -1]
        shares = logits.double().softmax(0)
        total += float(shares[whole[place]].log())
        hits += int(shares.argmax()) == whole[place]
    return total, hits


def ragged(count: int = 9) -> list[Pair]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 20, (count, 2), generator=generator).tolist()
    draw = lambda n: torch.randint(128, 384, (n,), generator=generator).tolist()  # noqa: E731
    return [Pair(draw(a), draw(b)) for a, b in lengths]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_equals_a_loop_over_tokens(kind: str) -> None:
    one = subject(kind)
    pairs = ragged()
    # One completion is what greedy decoding would give.
    with torch.no_grad():
        best = int(one.model.eval()(torch.tensor([pairs[0].prompt])).logits[0, -1].argmax())
    pairs[0] = Pair(pairs[0].prompt, [best])
    pairs[1] = Pair(pairs[0].prompt, [best, 130, 131])
    found = log_likelihoods(one, pairs)
    for pair, likelihood in zip(pairs, found, strict=True):
        log, hits = naive(one, pair.prompt, pair.completion, CONTEXT)
        assert likelihood.log == pytest.approx(log, abs=1e-4)
        assert likelihood.hits == hits and likelihood.greedy is (hits == likelihood.tokens)
        assert likelihood.tokens == len(pair.completion) and not likelihood.truncated
    assert found[0].greedy and not found[1].greedy and found[1].hits >= 1


def test_does_not_depend_on_the_batch() -> None:
    pairs = ragged(12)
    alone = [log_likelihoods(subject(), [pair])[0] for pair in pairs]
    for batch_tokens in (1, 64, 8192):
        together = log_likelihoods(subject(batch_tokens=batch_tokens), pairs)
        assert [one.log for one in together] == pytest.approx([one.log for one in alone], abs=1e-5, rel=1e-6)
        assert [one.hits for one in together] == [one.hits for one in alone]


def test_a_long_prompt_loses_its_beginning() -> None:
    one = subject(context=8)
    prompt, completion = list(range(130, 150)), [200, 201, 202]
    found = log_likelihoods(one, [Pair(prompt, completion), Pair(prompt[:6], completion)])
    # Six tokens before the completion and two of its own make a full context.
    kept = log_likelihoods(one, [Pair(prompt[-6:], completion)])[0]
    assert found[0].log == pytest.approx(kept.log, abs=1e-5)
    assert [likelihood.truncated for likelihood in found] == [True, False] and not kept.truncated


def test_a_long_completion_is_read_in_stretches_and_counts_whole() -> None:
    one = subject(context=8)
    prompt, completion = [130, 131, 132], list(range(200, 221))
    found = log_likelihoods(one, [Pair(prompt, completion)])[0]
    whole, total = prompt + completion, 0.0
    # Stretches of four, each read after the tokens before it that fit.
    for begin in range(3, len(whole), 4):
        end = min(begin + 4, len(whole))
        read = whole[max(0, end - 1 - 8) : end - 1]
        with torch.no_grad():
            logs = one.model.eval()(torch.tensor([read])).logits[0].log_softmax(1)
        total += sum(float(logs[len(read) - (end - place), whole[place]]) for place in range(begin, end))
    assert found.log == pytest.approx(total, abs=1e-4)
    assert found.tokens == 21 and found.truncated


def test_an_encoder_is_refused() -> None:
    with pytest.raises(RequestError, match="encoder"):
        log_likelihoods(subject("bert"), [Pair([1], [2])])


def test_white_space_moves_from_the_prompt_to_the_completion() -> None:
    tokenizer = word_tokenizer()
    (pair,) = encode_pairs(tokenizer, [("x: ", "ab")])
    assert pair.prompt == tokenizer.encode(["x:"])[0]
    assert tokenizer.decode(pair.completion) == " ab" and len(pair.completion) == 1
    assert encode_pairs(tokenizer, [("x:", " ab")]) == [pair]


def test_a_border_that_the_tokenizer_joins_loses_and_repeats_nothing() -> None:
    tokenizer = word_tokenizer()
    assert len(tokenizer.encode(["abcd"])[0]) == 1  # What stands on both sides is one token.
    (pair,) = encode_pairs(tokenizer, [("ab", "cd")])
    assert tokenizer.decode(pair.prompt) == "ab" and tokenizer.decode(pair.completion) == "cd"


def test_an_empty_prompt_is_the_start_token() -> None:
    tokenizer = byte_tokenizer()
    assert [pair.prompt for pair in encode_pairs(tokenizer, [("", "x"), (" ", "x")])] == [[tokenizer.bos]] * 2
    assert tokenizer.decode(encode_pairs(tokenizer, [(" ", "x")])[0].completion) == " x"
    bare = assemble([], byte_level(False))
    bare.fast.bos_token = bare.fast.eos_token = None
    with pytest.raises(RequestError, match="neither a BOS nor an EOS"):
        encode_pairs(bare, [("", "x")])
    with pytest.raises(RequestError, match="empty completion"):
        encode_pairs(tokenizer, [("question", "")])


def test_batches_keep_within_their_limits() -> None:
    sizes = [(3, 1), (10, 2), (4, 4), (9, 1), (1, 1)]
    found = list(batches(sizes, 20, 5))
    assert sorted(i for batch in found for i in batch) == [0, 1, 2, 3, 4]
    assert found[0] == [1, 3]
    for batch in found:
        assert len(batch) * max(sizes[i][0] for i in batch) <= 20
        assert sum(sizes[i][1] for i in batch) <= 5
    assert list(batches([(50, 50)], 20, 5)) == [[0]]


def test_pad_right() -> None:
    ids, mask = pad_right([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
