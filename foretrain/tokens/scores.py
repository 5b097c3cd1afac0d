"""Scores: a number for each training document of a domain, made once and kept in the cache beside its tokens.

    scores/HASH/train.npy      float64, one number a document, in the order of the token set's documents
    scores/HASH/manifest.json  the documents and the scorer that they are of, and what they cost

HASH is of the domain's documents and of the scorer with all that it reads, so another tokenizer finds them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretrain.corpus.scorers.base import Scorer
from foretrain.corpus.source import open_domain
from foretrain.errors import CorruptFile, RequestError
from foretrain.files import read_json, write_json
from foretrain.hashing import hash_bytes, hash_data
from foretrain.tokens.cache import made_once
from foretrain.tokens.selection import Scores

if TYPE_CHECKING:
    from foretrain.recipe import Domain

FORMAT = 1


def document_scores(
    name: str, domain: Domain, scorer: Scorer, fingerprint: str, count: int, cache: Path
) -> tuple[Scores, int]:
    """The scores of a domain's training documents, and the FLOPs that they cost when they were made.

    Args:
        name: of the domain.
        domain: whose documents are scored.
        scorer: by what; it has seen the recipe's models.
        fingerprint: of the domain's documents.
        count: how many documents there are.
        cache: where they are kept.

    Raises:
        RequestError: a document cannot be scored.
        CorruptFile: what is in the cache is damaged.
    """
    content = {"format": FORMAT, "documents": fingerprint, "scorer": scorer.content()}

    def make(folder: Path) -> None:
        train = (document for document, split in open_domain(domain).splits() if split == "train")
        try:
            scores = np.fromiter(scorer.scores(train), np.float64)
        except RequestError as error:
            raise RequestError(f"corpus.{name}.{error}") from error
        if not np.isfinite(scores).all():
            raise RequestError(
                f"corpus.{name}.score: scorer '{scorer.kind}' gave document number {int(np.isfinite(scores).argmin())} "
                "a score that is no finite number."
            )
        np.save(folder / "train.npy", scores)
        counts = {"count": len(scores), "flops": scorer.flops(), "hash": hash_bytes(scores.tobytes())}
        write_json(folder / "manifest.json", {**content, **counts})

    folder = made_once(cache / "scores" / hash_data(content), make)
    return _load(folder, count)


def _load(folder: Path, count: int) -> tuple[Scores, int]:
    try:
        scores: Scores = np.load(folder / "train.npy", allow_pickle=False)
        manifest = read_json(folder / "manifest.json")
        known = manifest["hash"]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise _damaged(folder) from error
    if scores.shape != (count,) or scores.dtype != np.float64 or hash_bytes(scores.tobytes()) != known:
        raise _damaged(folder)
    return scores, int(manifest.get("flops", 0))


def _damaged(folder: Path) -> CorruptFile:
    return CorruptFile(f"The scores in {folder} are damaged. Delete that folder; the next run makes it again.")


def describe(scores: Scores) -> dict[str, Any]:
    """How scores lie: the lowest, the quarters and the highest."""
    names = ("lowest", "quarter", "median", "three quarters", "highest")
    values = np.quantile(scores, [0, 0.25, 0.5, 0.75, 1])
    return dict(zip(names, map(float, values), strict=True))
