"""Prepare: from the domains of a recipe to token sets on disk, each made once and found again by content.

The cache holds five kinds of folders, named by the hash of all that decides their content:

    tokenizers/HASH/   a tokenizer trained on the corpus      documents of all domains, settings of the tokenizer
    tokens/HASH/       shards of a domain and manifest.json   documents of the domain, tokenizer, format
    overlaps/HASH/     what the domain shares with items      documents of the domain, items
    scores/HASH/       a number for each document             documents of the domain, scorer
    losses/HASH/       a model's loss on each of their tokens texts of some documents, model (`scorers/_losses.py`)

Which documents are kept and how they are sorted is decided anew each time and copies nothing (`arranged.py`), so that
tokens made once serve every selection and every order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretrain.corpus.document import Document
from foretrain.corpus.overlap import Overlap, OverlapIndex
from foretrain.corpus.scorers.base import Scorer
from foretrain.corpus.source import Source, open_domain
from foretrain.corpus.splits import Split
from foretrain.errors import CorruptFile, RequestError
from foretrain.files import read_json, write_json
from foretrain.hashing import hash_bytes, hash_data, seed_from
from foretrain.recipe import Domain
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.cache import cache_folder, made_once
from foretrain.tokens.encoding import encode_all
from foretrain.tokens.readable import Readable
from foretrain.tokens.redrawn import Redrawn
from foretrain.tokens.scores import describe, document_scores
from foretrain.tokens.selection import Ints, Scores
from foretrain.tokens.shard_file import FORMAT
from foretrain.tokens.shards import SetWriter, TokenSet
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from foretrain.named_models import NamedModel

Progress = Callable[[int, str], None]
"""`progress(tokens, domain)`: tokens made so far, over all domains, and the domain at work."""

GIVEN = "train-given.npy"
"""How many tokens of each training document stand in front of its text, in folders of domains with `metadata`."""
_KNOWN = 1 << 16

SPLITS: tuple[Split, ...] = ("train", "steer", "validation")


@dataclass
class Prepared:
    """What a run reads.

    Attributes:
        tokenizer: of all domains; None where they are not text.
        sets: by domain and split; only splits that hold something.
        reports: by domain, what was counted while it was read: documents, tokens and bytes of each split, records
            without text, invalid UTF-8 replaced, duplicates of explicit splits dropped.
        hashes: `corpus` (of each domain's inputs and settings), `tokens` (of each token set; the order it is read in is
            part of it where that is not the usual one) and `scores` (of the domains whose documents have some).
        overlaps: items of feedback or tasks that the corpus holds.
        warnings: what a user should know, a sentence each.
    """

    tokenizer: TextTokenizer | None
    sets: dict[str, dict[Split, Readable]]
    reports: dict[str, dict[str, Any]]
    hashes: dict[str, Any]
    overlaps: list[Overlap] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare(
    corpus: Mapping[str, Domain],
    part: Tokenizer,
    *,
    tokenizer: TextTokenizer | None = None,
    items: Mapping[str, list[str]] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    models: Mapping[str, NamedModel] | None = None,
) -> Prepared:
    """Tokenize what has not been tokenized before, and open it.

    Args:
        corpus: domains by name.
        part: the tokenizer that the recipe describes.
        tokenizer: takes the place of `part`: that of the model or run that training continues from.
        items: texts that the corpus must not hold (feedback, tasks), by the name of their set.
        cache: where prepared data is kept; `$FORETRAIN_CACHE` or `~/.cache/foretrain` by default.
        progress: told of the tokens made.
        seed: decides which documents are kept where any may be.
        models: that the recipe names, for scorers.

    Raises:
        RequestError: an input is missing or wrong, or a domain that should be trained on has nothing to train on.
        CorruptFile: a shard in the cache is damaged.
        RunError: the cache's disk is full.
    """
    cache = cache or cache_folder()
    sources = {name: open_domain(domain) for name, domain in corpus.items()}
    scorers = {name: _scorer(name, domain, models or {}) for name, domain in corpus.items()}
    prints = {name: source.fingerprint() for name, source in sources.items()}
    tokenizer = tokenizer or _tokenizer(part, sources, prints, cache)
    if tokenizer.eos is None:
        raise RequestError("The tokenizer names no token that ends a document (eos), and every document needs one.")
    index = OverlapIndex(items) if items else None
    prepared = Prepared(tokenizer, {}, {}, {"corpus": prints, "tokens": {}})
    done = 0
    for name, source in sources.items():
        work = _Work(name, source, prints[name], tokenizer, index, cache, progress, done)
        folder = work.tokens()
        manifest = read_json(folder / "manifest.json")
        sets = _open(folder, manifest)
        _need_training_text(name, corpus[name], sets, manifest)
        done += sum(found.tokens for found in sets.values())
        prepared.sets[name] = dict(sets)
        prepared.reports[name] = manifest
        prepared.hashes["tokens"][name] = {split: found.hash for split, found in sets.items()}
        if "train" in sets:
            _arrange(prepared, name, corpus[name], scorers[name], sets["train"], cache, seed)
        prepared.warnings += _warnings(name, manifest)
        if index is not None:
            prepared.overlaps += work.overlaps(hash_data(items))
    if index is not None:
        prepared.warnings += [
            f"{count} of the items of {name} {'is' if count == 1 else 'are'} too short to be looked for in the corpus."
            for name, count in index.unjudged.items()
            if count
        ]
    return prepared


def _scorer(name: str, domain: Domain, models: Mapping[str, NamedModel]) -> Scorer | None:
    """A domain's scorer, ready to score; the recipe's own stays as it was read."""
    if domain.score is None:
        return None
    scorer = domain.score.model_copy(deep=True)
    try:
        scorer.setup(models)
    except RequestError as error:
        raise RequestError(f"corpus.{name}.{error}") from error
    return scorer


def _arrange(
    prepared: Prepared, name: str, domain: Domain, scorer: Scorer | None, tokens: TokenSet, cache: Path, seed: int
) -> None:
    """Score a domain's training documents, keep those that are wanted, and put them in order, as the recipe says."""
    scores: Scores | None = None
    if scorer is not None:
        print_ = prepared.hashes["corpus"][name]
        scores, cost = document_scores(name, domain, scorer, print_, tokens.documents, cache)
        prepared.hashes.setdefault("scores", {})[name] = hash_bytes(scores.tobytes())
        prepared.reports[name] = {**prepared.reports[name], "scores": describe(scores)}
        if cost:
            prepared.reports[name]["scoring_flops"] = cost
    documents: Ints | None = None
    if domain.keep is not None:
        wanted = domain.keep.tokens
        if wanted is not None and wanted > tokens.tokens:
            raise RequestError(
                f"corpus.{name}.keep: the training split of domain '{name}' has {tokens.tokens} tokens, fewer than the "
                f"{wanted} asked for. Ask for at most {tokens.tokens}, give it more text, or leave `keep` out."
            )
        sizes = np.diff(tokens.document_ends()[0], prepend=0)
        key = seed_from(seed, "keep", name)
        if domain.keep.redraw:
            drawn = Redrawn(tokens, domain.keep, sizes, scores, key)
            prepared.sets[name]["train"] = drawn
            prepared.hashes["tokens"][name]["train"] = domain.order.identity(drawn.hash)
            return
        documents = domain.keep.chosen(sizes, scores, key)
        if scores is not None:
            prepared.reports[name]["kept scores"] = describe(scores[documents])
    places = None
    if scores is not None:
        places = domain.order.arranged(scores if documents is None else scores[documents])
    if places is not None:
        documents = places if documents is None else documents[places]
    found: Readable = tokens if documents is None else Arranged(tokens, documents)
    prepared.sets[name]["train"] = found
    prepared.hashes["tokens"][name]["train"] = domain.order.identity(found.hash)


def _tokenizer(part: Tokenizer, sources: Mapping[str, Source], prints: Mapping[str, str], cache: Path) -> TextTokenizer:
    """The tokenizer of a part: trained where it is to be, and then the same for every order and naming of domains."""
    if not part.trained:
        return part.build(lambda: iter(()))
    order = sorted(sources, key=lambda name: prints[name])
    key = hash_data({"format": 1, "tokenizer": part.identity(), "documents": [prints[name] for name in order]})

    def texts() -> Iterator[str]:
        return in_turn([_training_texts(sources[name]) for name in order])

    folder = made_once(cache / "tokenizers" / key, lambda temporary: part.build(texts).save(temporary))
    try:
        return TextTokenizer.load(folder)
    except RequestError as error:
        raise CorruptFile(f"The tokenizer in {folder} is damaged. Delete that folder; it is made again.") from error


def _training_texts(source: Source) -> Iterator[str]:
    return (document.text for document, split in source.splits() if split == "train")


def in_turn(streams: list[Iterator[str]]) -> Iterator[str]:
    """Texts of several streams, always from the one that has given the fewest characters so far."""
    given = dict.fromkeys(range(len(streams)), 0)
    while given:
        number = min(given, key=lambda candidate: (given[candidate], candidate))
        text = next(streams[number], None)
        if text is None:
            del given[number]
        else:
            given[number] += len(text)
            yield text


@dataclass
class _Work:
    """One domain on its way to tokens."""

    name: str
    source: Source
    fingerprint: str
    tokenizer: TextTokenizer
    index: OverlapIndex | None
    cache: Path
    progress: Progress | None
    done: int
    found: list[Overlap] | None = None
    _known: dict[str, list[int]] = field(default_factory=dict)

    def tokens(self) -> Path:
        """The folder of the domain's shards."""
        content = {"format": FORMAT, "documents": self.fingerprint, "tokenizer": self.tokenizer.hash}
        if self.source.domain.metadata is not None:
            content["metadata"] = self.source.domain.metadata.model_dump(mode="json")
        key = hash_data(content)
        return made_once(self.cache / "tokens" / key, self._tokenize)

    def _tokenize(self, folder: Path) -> None:
        found: list[Overlap] = []
        writers = {split: SetWriter(folder, split, self.tokenizer.vocabulary) for split in SPLITS}
        pairs = (((document, split), document.text) for document, split in self._checked(found))
        given: list[int] = []
        end = self.tokenizer.eos
        assert end is not None  # `prepare` refuses others
        try:
            for encoded in encode_all(self.tokenizer, pairs):
                document, split = encoded.item
                before = self._given(document) if split == "train" else []
                ids = [*before, *encoded.ids, end]
                writers[split].append(ids, encoded.bytes, document.id)
                self._tell(len(ids))
                if split == "train":
                    given.append(len(before))
            for writer in writers.values():
                writer.finish()
        finally:
            for writer in writers.values():
                writer.abort()
        if self.source.domain.metadata is not None:
            np.save(folder / GIVEN, np.array(given, np.int32))
        self.found = found if self.index is not None else None
        write_json(folder / "manifest.json", self._manifest(writers))

    def _given(self, document: Document) -> list[int]:
        """The ids that stand in front of a training document."""
        annotation = self.source.domain.metadata
        if annotation is None:
            return []
        try:
            return self._encoded(annotation.text(document))
        except RequestError as error:
            raise RequestError(f"corpus.{self.name}.metadata: {error}") from error

    def _encoded(self, text: str) -> list[int]:
        """The ids of a text in front; many documents have the same one."""
        if text not in self._known:
            if len(self._known) > _KNOWN:
                self._known.clear()
            self._known[text] = self.tokenizer.encode([text])[0]
        return self._known[text]

    def _manifest(self, writers: Mapping[Split, SetWriter]) -> dict[str, Any]:
        report = self.source.report
        return {
            "format": FORMAT,
            "documents": self.fingerprint,
            "tokenizer": self.tokenizer.hash,
            "empty": report.empty,
            "replaced": report.replaced,
            "dropped": report.dropped,
            "splits": {
                split: {
                    "documents": writer.documents,
                    "tokens": writer.tokens,
                    "bytes": writer.bytes,
                    "shards": [path.name for path in writer.paths],
                }
                for split, writer in writers.items()
            },
        }

    def _checked(self, found: list[Overlap]) -> Iterator[tuple[Document, Split]]:
        """Every document with its split; what it shares with the items is put into `found`."""
        for document, split in self.source.splits():
            if self.index is not None:
                found += self.index.check(self.name, document)
            yield document, split

    def _tell(self, tokens: int) -> None:
        before, self.done = self.done, self.done + tokens
        if self.progress is not None and before >> 16 != self.done >> 16:
            self.progress(self.done, self.name)

    def overlaps(self, items: str) -> list[Overlap]:
        """What the domain shares with the items (whose hash is given); looked for once."""
        key = hash_data({"format": 1, "documents": self.fingerprint, "items": items})
        folder = made_once(self.cache / "overlaps" / key, self._find_overlaps)
        return [Overlap(**{**entry, "domain": self.name}) for entry in read_json(folder / "overlaps.json")]

    def _find_overlaps(self, folder: Path) -> None:
        found = self.found
        if found is None:  # the tokens were there already, so no document has been looked at
            found = []
            for _ in self._checked(found):
                pass
        write_json(folder / "overlaps.json", [asdict(entry) for entry in found])


def _open(folder: Path, manifest: Mapping[str, Any]) -> dict[Split, TokenSet]:
    sets: dict[Split, TokenSet] = {}
    for split in SPLITS:
        counts = manifest["splits"][split]
        if counts["shards"]:
            given = folder / GIVEN if split == "train" and (folder / GIVEN).is_file() else None
            found = sets[split] = TokenSet([folder / name for name in counts["shards"]], given)
            if (found.tokens, found.documents) != (counts["tokens"], counts["documents"]):
                raise CorruptFile(
                    f"{folder} holds {found.tokens} {split} tokens where {counts['tokens']} were written. Delete that "
                    "folder; the next run makes it again from the corpus."
                )
    return sets


def _need_training_text(name: str, domain: Domain, sets: Mapping[Split, TokenSet], manifest: Mapping[str, Any]) -> None:
    if domain.weight > 0 and "train" not in sets:
        others = sum(counts["documents"] for counts in manifest["splits"].values())
        raise RequestError(
            f"corpus.{name}: none of its {others} documents is left to train on; they are all in the validation or "
            "steer split. Lower those shares, give it more documents, or set its weight to 0."
        )


def _warnings(name: str, manifest: Mapping[str, Any]) -> Iterable[str]:
    if manifest["replaced"]:
        yield f"Domain '{name}': {manifest['replaced']} invalid UTF-8 sequences were replaced by U+FFFD."
    if manifest["empty"]:
        yield f"Domain '{name}': {manifest['empty']} records without text were passed over."
    if manifest["dropped"]:
        left_out = f"{manifest['dropped']} documents that its validation or steer path holds too"
        yield f"Domain '{name}': {left_out} were left out."
