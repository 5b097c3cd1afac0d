"""Source: the documents of one domain, in one order, each with its split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from foretrain.corpus.document import Document
from foretrain.corpus.inputs import Input, open_path
from foretrain.corpus.records import Reader, Report
from foretrain.corpus.splits import Split, describe, part_position, settle, shares, side, split_key
from foretrain.corpus.where import Where
from foretrain.errors import RequestError
from foretrain.hashing import hash_data

if TYPE_CHECKING:
    from foretrain.recipe import Domain

SMALL = 1_000
"""Up to so many documents a corpus is small: it is read before it is split, so that no split stays empty."""
SMALL_TEXT = 16_000_000
"""Characters up to which it is."""

_EXPLICIT: tuple[Split, ...] = ("validation", "steer")


class Source:
    """The documents of one domain.

    Attributes:
        domain: the section of the recipe.
        report: counts of the latest reading, complete once it has ended.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.report = Report()
        self._where: dict[Split, Where] = {}
        paths = [domain.path] if isinstance(domain.path, str) else domain.path
        if not paths:
            raise RequestError("A domain of the corpus names no path.")
        special = [path for path in paths if path.startswith(("builtin:", "hub:"))]
        if domain.options and not special:
            raise RequestError(
                f"{describe(domain)}: 'options' ({', '.join(domain.options)}) are for 'builtin:' and 'hub:' only; "
                "a file has none."
            )
        self._inputs: dict[Split, list[Input]] = {
            "train": [found for path in paths for found in open_path(path, domain.options)]
        }
        for split in _EXPLICIT:
            path = getattr(domain, split)
            if isinstance(path, str):
                # The options were written for the domain's own path; another data set may not know them.
                same = any(path.partition("#")[0] == other.partition("#")[0] for other in special)
                self._inputs[split] = open_path(path, domain.options if same else None)

    def documents(self) -> Iterator[Document]:
        """Every document of the domain's `path`, always in the same order; streaming.

        Raises:
            RequestError: a file or record cannot be read, or there is no document at all.
        """
        reader = self._reader()
        yield from self._read(reader, "train")
        self._need("train", reader.report.documents)

    def splits(self) -> Iterator[tuple[Document, Split]]:
        """Every document with its split; streaming, and always in the same order.

        Documents of explicit `validation` and `steer` paths come first. A document of `path` whose text (or group)
        is also there is dropped and counted, so that exact duplicates never stand on two sides.

        Raises:
            RequestError: a file or record cannot be read, or a split that was asked for holds nothing.
        """
        reader = self._reader()
        counts = reader.report.splits
        for document, split in self._split(reader):
            if split == "train" and not self._in_part(document):
                reader.report.documents -= 1
                reader.report.bytes -= len(document.text.encode())
                continue
            counts[split] = counts.get(split, 0) + 1
            yield document, split
        for split in (name for name in self._inputs if name != "train"):
            self._need(split, counts.get(split, 0))
        # A domain without weight is only judged by, and may be all validation.
        self._need("train", counts.get("train", 0) if self.domain.weight > 0 else sum(counts.values()))
        for split in self._asked():
            self._need(split, counts.get(split, 0))

    def fingerprint(self) -> str:
        """Hash of everything that decides the documents and their splits: content of the inputs, and settings."""
        domain = self.domain
        # With a filter, the documents up to the limit may reach to the end of the input.
        limit = None if domain.where else domain.limit
        content = {split: [entry.identity(limit) for entry in inputs] for split, inputs in self._inputs.items()}
        settings: dict[str, Any] = {
            "text": domain.text,
            "group": domain.group,
            "invalid": domain.invalid,
            "limit": domain.limit,
        }
        if domain.part is not None:
            settings["part"] = domain.part
        if domain.where:  # only then, so that what was prepared before there were filters is found again
            settings["where"] = Where(domain.where).wanted
        return hash_data({"format": 1, "content": content, "settings": settings, "shares": shares(domain)})

    def _reader(self) -> Reader:
        reader = Reader(self.domain.text, self.domain.group, self.domain.invalid)
        self.report = reader.report
        return reader

    def _asked(self) -> list[Split]:
        """The splits that come out of the domain's own documents, besides train."""
        return [name for name, share in zip(_EXPLICIT, shares(self.domain), strict=True) if share > 0]

    def _read(self, reader: Reader, split: Split) -> Iterator[Document]:
        if self.domain.where:  # one for each split, so that an error lists what is in that split's own files
            reader.where = self._where[split] = Where(self.domain.where)
        documents = chain.from_iterable(entry.documents(reader) for entry in self._inputs[split])
        yield from islice(documents, self.domain.limit)

    def _split(self, reader: Reader) -> Iterator[tuple[Document, Split]]:
        taken: set[int] = set()
        for split in _EXPLICIT:
            if split in self._inputs:
                own: set[int] = set()
                for document, key in self._keyed(reader, split, taken):
                    own.add(key)
                    yield document, split
                taken |= own
        rest = self._keyed(reader, "train", taken)
        held: list[tuple[Document, int]] = []
        size = 0
        for document, key in rest:
            held.append((document, key))
            size += len(document.text)
            if len(held) >= SMALL or size >= SMALL_TEXT:
                break
        else:
            sides = settle((key for _, key in held), self.domain) if held else {}
            yield from ((document, sides[key]) for document, key in held)
            return
        for document, key in chain(held, rest):
            yield document, side(key, self.domain)

    def _in_part(self, document: Document) -> bool:
        part = self.domain.part
        return part is None or part[0] <= part_position(split_key(document, self.domain.group)) < part[1]

    def _keyed(self, reader: Reader, split: Split, taken: set[int]) -> Iterator[tuple[Document, int]]:
        """Documents with their split keys, without those whose key is taken."""
        for document in self._read(reader, split):
            key = split_key(document, self.domain.group)
            if key in taken:
                reader.report.dropped += 1
                reader.report.documents -= 1
                reader.report.bytes -= len(document.text.encode())
            else:
                yield document, key

    def _need(self, split: Split, count: int) -> None:
        """Say why a split is empty, if it is."""
        if count:
            return
        report = self.report
        path = getattr(self.domain, split) if split != "train" and split in self._inputs else describe(self.domain)
        notes = [
            f"{report.empty} without text were passed over" if report.empty else "",
            f"{report.dropped} that a validation or steer path holds too were left out" if report.dropped else "",
        ]
        note = f" ({'; '.join(note for note in notes if note)})" if any(notes) else ""
        if split != "train" and split not in self._inputs:
            raise RequestError(
                f"The share of '{split}', {getattr(self.domain, split):g} of {path}, is so small that no document "
                f"falls into it{note}; raise it, or name a path for it."
            )
        where = self._where.get(split)
        kept = f" {where.describe()}" if where is not None else ""
        raise RequestError(f"The corpus {path} holds no documents{kept}{note}, so there is nothing for '{split}'.")


def open_domain(domain: Domain) -> Source:
    """The documents of a domain; its paths are looked up at once, and read only when asked for.

    Raises:
        RequestError: a file is missing, of an unknown kind, or a built-in corpus or an option is unknown.
    """
    return Source(domain)


def split_documents(domain: Domain) -> Iterator[tuple[Document, Split]]:
    """Every document of a domain with its split."""
    return open_domain(domain).splits()
