"""The losses of a named model on every token of documents: read once, and kept by the content of model and texts.

    losses/HASH/losses.npy     float32, nats of every token, document after document
    losses/HASH/ends.npy       int64, where each document ends
    losses/HASH/manifest.json  the model's tokenizer, FLOPs of the reading, hashes of the two files

HASH is of the model's weights, of how it reads, and of the texts of a piece of the corpus. Whatever else is made of the
same losses finds them; a reading that was killed goes on after its last whole piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretrain import flops
from foretrain.corpus.scorers._pieces import grouped
from foretrain.distributed import alone
from foretrain.errors import CorruptFile, RequestError
from foretrain.files import cache_folder, read_json, write_json
from foretrain.hashing import hash_bytes, hash_data, hash_file
from foretrain.kernels.accelerate import accelerate
from foretrain.models.base import family
from foretrain.models.pretrained import DEFAULT_CONTEXT
from foretrain.objectives.outputs import Outputs, has_plain_head, run_model
from foretrain.tokens.cache import made_once

if TYPE_CHECKING:
    from foretrain.named_models import NamedModel
    from foretrain.tokens.tokenizer import TextTokenizer

Unit = Literal["token", "character", "byte"]
Floats = NDArray[np.float32]

FORMAT = 1
PIECE = 1 << 22
"""Characters of text that are read, and kept, together."""
ROWS_OF = 8192
"""Tokens of a forward pass, padding included."""
PADDED = 16
"""Rows are padded to a multiple of so many tokens."""


@dataclass(frozen=True)
class Losses:
    """What one model says of one document.

    Attributes:
        nats: float32, the loss of each of its tokens, in the model's own tokenizer and in the text's order.
        characters: of the document; `bytes`: of its UTF-8.
        tokenizer: hash of the model's tokenizer: losses per token compare where it is the same.
    """

    nats: Floats
    characters: int
    bytes: int
    tokenizer: str

    def mean(self, unit: Unit) -> float:
        """Nats of the whole document per token, character or byte."""
        total = float(self.nats.sum(dtype=np.float64))
        return total / {"token": len(self.nats), "character": self.characters, "byte": self.bytes}[unit]


class Reader:
    """A named model that reads documents.

    Each document is read by itself, after the token that begins a text, in windows one after the other, so that each of
    its tokens is predicted once, from those before it in its window; the token that ends a document is not looked at.

    Args:
        name: of the model in the recipe.
        named: the model.
        window: tokens read at once; unset: as many as the model has positions for, 1024 at most.
        precision: `fp32`, or `bf16` by autocast.

    Attributes:
        flops: of everything that was asked so far, whenever it was computed.
    """

    def __init__(self, name: str, named: NamedModel, window: int | None, precision: Literal["fp32", "bf16"]) -> None:
        self.where = f"models.{name}"
        self.named, self.window, self.precision = named, window, precision
        self.content = named.content()
        self.flops = 0
        self._open: _Opened | None = None

    def losses(self, texts: Sequence[str]) -> list[Losses]:
        """The losses of some texts, which make up a piece; from the cache, where they were read before.

        Raises:
            RequestError: the model cannot be had, or cannot read a text.
            CorruptFile: what is in the cache is damaged.
        """
        # In an order of their own, so that the same texts are the same piece whatever order they came in.
        keys = [hash_bytes(text.encode()) for text in texts]
        different = dict(sorted(zip(keys, texts, strict=True)))
        how = {"window": self.window, "precision": self.precision}
        name = hash_data({"format": FORMAT, "model": self.content, **how, "texts": list(different)})

        def make(folder: Path) -> None:
            self._make(folder, list(different.values()))

        folder = made_once(cache_folder() / "losses" / name, make)
        nats, ends, manifest = _load(folder, len(different))
        self.flops += int(manifest["flops"])
        places = dict(zip(different, np.split(nats, ends[:-1]), strict=True))
        tokenizer = str(manifest["tokenizer"])
        return [
            Losses(places[key], len(text), len(text.encode()), tokenizer) for key, text in zip(keys, texts, strict=True)
        ]

    def _make(self, folder: Path, texts: Sequence[str]) -> None:
        if self._open is None:
            self._open = _Opened(self.where, self.named, self.window, self.precision)
        opened = self._open
        found, cost = flops.counted(lambda: opened.read(texts))
        np.save(folder / "losses.npy", np.concatenate(found))
        np.save(folder / "ends.npy", np.cumsum([len(nats) for nats in found], dtype=np.int64))
        hashes = {name: hash_file(folder / f"{name}.npy") for name in ("losses", "ends")}
        write_json(folder / "manifest.json", {"tokenizer": opened.tokenizer.hash, "flops": cost, "hashes": hashes})


def pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    """Neighbours in groups of `PIECE` characters or a little more."""
    return grouped(texts, PIECE)


class _Opened:
    """A named model in memory, with its tokenizer."""

    def __init__(self, where: str, named: NamedModel, window: int | None, precision: Literal["fp32", "bf16"]) -> None:
        from foretrain.named_models import read_model  # the recipe's schema has scorers in it

        self.where, self.precision = where, precision
        self.device = alone().device
        self.models: list[nn.Module] = []
        tokenizers: dict[str, TextTokenizer] = {}
        room = DEFAULT_CONTEXT
        if not named.paths:
            raise RequestError(f"{where}: the list of paths is empty; name one model at least.")
        for path in named.paths:
            model, tokenizer = read_model(path, where)
            if family(model.config) != "decoder" or tokenizer is None:
                raise RequestError(
                    f"{where}: {path} {'has no tokenizer beside it' if tokenizer is None else 'is no decoder'}, and "
                    "documents are scored by models that read text from left to right."
                )
            tokenizers[tokenizer.hash] = tokenizer
            positions = getattr(model.config, "max_position_embeddings", None)
            room = min(room, positions) if isinstance(positions, int) and window is None else room
            if window is not None and isinstance(positions, int) and positions < window:
                raise RequestError(f"{where}: {path} reads {positions} tokens at once, and `window` asks for {window}.")
            self.models.append(accelerate(model).eval().requires_grad_(False).to(self.device))
            has_plain_head(self.models[-1])  # looked at here, before anything is counted
        if len(tokenizers) > 1:
            raise RequestError(
                f"{where}: its members have {len(tokenizers)} different tokenizers; they should have one."
            )
        self.window = window or room
        self.tokenizer = next(iter(tokenizers.values()))
        first = self.tokenizer.bos if self.tokenizer.bos is not None else self.tokenizer.eos
        if first is None:
            raise RequestError(
                f"{where}: its tokenizer names no token that begins or ends a text (bos, eos), so nothing stands "
                "before the first token of a document."
            )
        self.first = first

    def read(self, texts: Sequence[str]) -> list[Floats]:
        """The loss of every token of each text."""
        ids = self.tokenizer.encode(texts)
        for text, tokens in zip(texts, ids, strict=True):
            if not tokens:
                raise RequestError(f"{self.where}: its tokenizer makes no token of the document '{text[:40]}'.")
        found = [np.zeros(len(tokens), np.float32) for tokens in ids]
        # (document, where in it): a window predicts the tokens from there on, and reads the one before each.
        windows = [(n, start) for n, tokens in enumerate(ids) for start in range(0, len(tokens), self.window)]
        windows.sort(key=lambda place: min(self.window, len(ids[place[0]]) - place[1]))
        while windows:
            n, start = windows[-1]
            length = min(self.window, -(-(len(ids[n]) - start) // PADDED) * PADDED)
            rows = max(1, ROWS_OF // length)
            batch, windows = windows[-rows:], windows[:-rows]
            rowed = torch.full((len(batch), length + 1), self.first, dtype=torch.int64)
            for row, (n, start) in enumerate(batch):
                taken = ([ids[n][start - 1]] if start else [self.first]) + ids[n][start : start + length]
                rowed[row, : len(taken)] = torch.tensor(taken)
            losses = self._losses(rowed.to(self.device)).cpu().numpy()
            for row, (n, start) in enumerate(batch):
                count = min(length, len(ids[n]) - start)
                found[n][start : start + count] = losses[row, :count]
        return found

    @torch.no_grad()
    def _losses(self, tokens: Tensor) -> Tensor:
        """Float32 [rows, length]: the loss of every token but each row's first; what fills rows up stands behind."""
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = [run_model(model, input_ids=inputs) for model in self.models]
            one = outputs[0]
            if len(outputs) > 1:
                one = Outputs(logits=torch.stack([each.logits().float() for each in outputs]).mean(0))
            return -one.log_probabilities(labels[..., None])[..., 0]


def _load(folder: Path, count: int) -> tuple[Floats, NDArray[np.int64], dict[str, Any]]:
    try:
        manifest = read_json(folder / "manifest.json")
        whole = all(hash_file(folder / f"{name}.npy") == known for name, known in manifest["hashes"].items())
        nats, ends = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("losses", "ends"))
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise _damaged(folder) from error
    if not whole or len(ends) != count or ends[-1] != len(nats):
        raise _damaged(folder)
    return nats, ends, manifest


def _damaged(folder: Path) -> CorruptFile:
    return CorruptFile(f"The losses in {folder} are damaged. Delete that folder; the next run makes it again.")
