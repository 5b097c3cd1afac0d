"""Exact duplicates: the first of each text stays, over all shards, and knows how many there were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from foretrain.corpus.document import Document
from foretrain.curation.steps.exact_duplicates import ExactDuplicates
from tests.curation.stages import run_step, stage_of


def test_copies_are_counted_over_shards(tmp_path: Path) -> None:
    texts = ["one", "two", "one", "three  words\nhere", "two", "one", "three words here", "One"]
    all_ = [Document(str(i), text, "test", {"kept": i}) for i, text in enumerate(texts)]
    shards = [all_[:3], [], all_[3:]]
    left, counts = run_step(ExactDuplicates(), stage_of(tmp_path, shards))
    kept = [document for shard in left for document in shard]
    assert [document.id for document in kept] == ["0", "1", "3", "7"], "white space aside, the first of each text"
    expected = Counter(" ".join(text.split()) for text in texts)
    assert [document.scores["copies"] for document in kept] == [
        expected[" ".join(document.text.split())] for document in kept
    ]
    assert all(document.metadata == {"kept": int(document.id)} and document.source == "test" for document in kept)
    assert (counts.documents, counts.kept, counts.dropped) == (8, 4, {"the same text": 4})
