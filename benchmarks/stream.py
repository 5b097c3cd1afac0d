"""Speed and memory of the stream: tokens per second on one core, and resident memory on a small and a large corpus.

python -m benchmarks.stream                         # 20 MB against 2 GB of generated tokens
python -m benchmarks.stream --training 16000        # and the ratio to a training run of 16,000 tokens/s
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from foretrain.section import parse_count
from foretrain.tokens.shards import SetWriter, TokenSet
from foretrain.tokens.stream import Stream

DOCUMENT = 1000
VOCABULARY = 4096


def generate(folder: Path, size: int) -> None:
    """Two domains of random documents, `size` bytes of tokens in all, straight into shards."""
    tokens = np.random.default_rng(0).integers(3, VOCABULARY, 1 << 20).astype(np.uint16)
    for name in ("one", "two"):
        with SetWriter(folder, name, VOCABULARY, shard_tokens=1 << 28) as writer:
            for number in range(size // 4 // DOCUMENT):
                start = number * 7919 % (len(tokens) - DOCUMENT)
                writer.append(tokens[start : start + DOCUMENT], 4 * DOCUMENT, f"{name}:{number}")


def resident() -> int:
    """Resident memory of this process now, in bytes, mapped pages of files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(folder: Path, rows: int, context: int, steps: int) -> dict[str, float]:
    """Batches of a corpus in random order: tokens per second, and growth of resident memory, peak included."""
    sets = {name: TokenSet(sorted(folder.glob(f"{name}-*.shard"))) for name in ("one", "two")}
    before = resident()
    begin = time.perf_counter()
    stream = Stream(sets, {"one": 0.3, "two": 0.7}, window=context + 1, stride=context, rows=rows, seed=0)
    largest, speeds = 0, []
    opened = time.perf_counter() - begin
    for _ in range(10):
        begin = time.perf_counter()
        for _ in range(steps // 10):
            stream.batch()
            stream.advance()
        speeds.append(steps // 10 * rows * context / (time.perf_counter() - begin))
        largest = max(largest, resident())
    return {
        "corpus_tokens": float(sum(found.tokens for found in sets.values())),
        "first_tokens_per_second": speeds[0],
        "tokens_per_second": float(np.median(speeds)),
        "stream_seconds": opened,
        "resident": largest,
        "grown": largest - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=parse_count, default=20_000_000, help="bytes of tokens of the small corpus")
    parser.add_argument("--large", type=parse_count, default=2_000_000_000, help="bytes of tokens of the large corpus")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--training", type=float, help="tokens per second that training consumes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.rows, options.context, options.steps)))
        return
    results = {}
    for name in ("small", "large"):
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), getattr(options, name))
            # A process of its own: memory is what the stream takes, not what generating left behind.
            command = [sys.executable, "-m", "benchmarks.stream", "--measure", folder]
            command += ["--rows", str(options.rows), "--context", str(options.context), "--steps", str(options.steps)]
            results[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if options.training:
        results["ratio_to_training"] = results["large"]["tokens_per_second"] / options.training
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name in ("small", "large"):
        found = results[name]
        print(
            f"{name}: {found['corpus_tokens'] / 1e6:.0f}M tokens: {found['tokens_per_second'] / 1e6:.2f}M tokens/s "
            f"(first tenth {found['first_tokens_per_second'] / 1e6:.2f}M), resident {found['resident'] / 1e6:.0f} MB "
            f"({found['grown'] / 1e6:+.0f} MB while reading)"
        )
    if options.training:
        print(f"stream / training: {results['ratio_to_training']:.0f}x (needed: 20x)")


if __name__ == "__main__":
    main()
