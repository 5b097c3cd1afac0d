"""Speed of tokenization against the `tokenizers` library itself, side by side and in turn on the same text.

    python -m benchmarks.tokenization                   # 8 MB of Python source that ships with the interpreter
    python -m benchmarks.tokenization --path notes.jsonl

`encode` is `TextTokenizer.encode`; `prepare` goes from documents in memory to finished shards on disk. Both ratios are
given: of seconds on the clock, and of processor seconds, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer

from foretrain.recipe import Domain
from foretrain.section import parse_count
from foretrain.tokens.encoding import encode_all
from foretrain.tokens.shards import SetWriter
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.bpe import Bpe


def python_source() -> Iterator[str]:
    """The functions and classes of the standard library, about as long as web documents."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from (piece for start in range(0, len(text), 3000) if (piece := text[start : start + 3000]))


def texts_of(path: str | None) -> Iterator[str]:
    if path is None:
        yield from python_source()
        return
    from foretrain.corpus.source import open_domain

    yield from (document.text for document in open_domain(Domain(path=str(Path(path).resolve()))).documents())


def write(tokenizer: TextTokenizer, texts: list[str]) -> None:
    """What preparing a corpus does once documents are read."""
    with tempfile.TemporaryDirectory() as folder, SetWriter(Path(folder), "train", tokenizer.vocabulary) as writer:
        for number, encoded in enumerate(encode_all(tokenizer, enumerate(texts))):
            writer.append([*encoded.ids, tokenizer.eos or 0], encoded.bytes, str(number))
        writer.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="text to encode, in any format that a corpus may have")
    parser.add_argument("--bytes", type=parse_count, default=8_000_000, help="how much of it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    texts: list[str] = []
    size = 0
    for text in texts_of(options.path):
        texts.append(text)
        size += len(text.encode())
        if size >= options.bytes:
            break
    tokenizer = Bpe().build(lambda: iter(texts))
    raw = Tokenizer.from_str(tokenizer.fast.backend_tokenizer.to_str())
    ways: dict[str, Callable[[], object]] = {
        "tokenizers": lambda: [found.ids for found in raw.encode_batch(texts, add_special_tokens=False)],
        "encode": lambda: tokenizer.encode(texts),
        "prepare": lambda: write(tokenizer, texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name, way in ways.items():
            begin, spent = time.perf_counter(), time.process_time()
            way()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
                processor[name].append(time.process_time() - spent)
    speeds = {name: size / statistics.median(found) / 1e6 for name, found in seconds.items()}
    ratios = {name: ratio(seconds["tokenizers"], seconds[name]) for name in ("encode", "prepare")}
    busy = {name: ratio(processor["tokenizers"], processor[name]) for name in ("encode", "prepare")}
    if options.json:
        found = {"megabytes_per_second": speeds, "ratio": ratios, "processor_ratio": busy, "cores": os.cpu_count()}
        print(json.dumps(found, indent=2))
        return
    print(f"{size / 1e6:.1f} MB in {len(texts)} documents, {os.cpu_count()} cores")
    for name, speed in speeds.items():
        note = f"  {ratios[name]:.2f}x of tokenizers, {busy[name]:.2f}x by processor time" if name in ratios else ""
        print(f"{name:<12} {speed:6.2f} MB/s{note}")
    print("needed: 0.9x")


def ratio(base: list[float], mine: list[float]) -> float:
    """The base's seconds over mine, the median over rounds."""
    return statistics.median(theirs / own for theirs, own in zip(base, mine, strict=True))


if __name__ == "__main__":
    main()
