"""The side of lm-eval: anything that foretrain evaluates as one of its models. Imported only where lm-eval is there."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from foretrain.errors import RequestError
from foretrain.generation import generate
from foretrain.tasks.base import Evaluated
from foretrain.tasks.likelihood import Pair, log_likelihoods, start


class Harness(TemplateLM):
    """`Evaluated` as lm-eval's model; requests are encoded as its own models encode them."""

    def __init__(self, subject: Evaluated) -> None:
        super().__init__()
        self.subject = subject

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token (or the start token, where there is no other)."""
        eos = self.subject.tokenizer.eos
        return start(self.subject.tokenizer) if eos is None else eos

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that begins from nothing."""
        return start(self.subject.tokenizer)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, without special tokens."""
        return self.subject.tokenizer.encode([string])[0]

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        found = log_likelihoods(self.subject, [Pair(prompt, completion) for _, prompt, completion in requests])
        return [(one.log, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in the windows that lm-eval prescribes."""
        pairs, owners = [], []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.subject.context, context_len=1
            )
            for window in windows:
                pairs.append(Pair(*make_disjoint_window(window)))
                owners.append(number)
        sums = [0.0] * len(requests)
        for owner, one in zip(owners, log_likelihoods(self.subject, pairs), strict=True):
            sums[owner] += one.log
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations of prompts, by each request's own settings; those with equal settings run together."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        for numbers in groups.values():
            settings = _settings(requests[numbers[0]].args[1])
            for number, one in zip(
                numbers, generate(self.subject, [requests[n].args[0] for n in numbers], **settings), strict=True
            ):
                texts[number] = one.text
        return texts


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a generating task, as `generate` takes them.

    Raises:
        RequestError: one of them asks for what isn't there (beams, say).
    """
    left = dict(given)
    until = left.pop("until", None) or []
    sample = left.pop("do_sample", None)
    temperature = float(left.pop("temperature", None) or (1.0 if sample else 0.0))
    lengths = [
        left.pop(name, None) for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    ]
    settings = {
        "stop": [until] if isinstance(until, str) else [text for text in until if text],
        "temperature": 0.0 if sample is False else temperature,
        "top_k": left.pop("top_k", None) or None,
        "top_p": left.pop("top_p", None),
        "tokens": int(next((length for length in lengths if length is not None), 256)),
    }
    if left.pop("num_beams", 1) != 1 or left:
        raise RequestError(
            f"lm_eval: generation_kwargs {given} hold settings that are not supported here: {sorted(left)}."
        )
    return settings
