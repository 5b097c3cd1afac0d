"""How long a checkpoint of a 50M model with AdamW state stalls training, against one training step.

Run: `python benchmarks/checkpoint.py` (about a minute on 2 cores; add `--threads N`). The stall is what `save` takes
before training goes on. What the writing thread takes from the steps beside it is told as its CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foretrain.checkpoints import Checkpointer, step_folder
from foretrain.files import show_bytes

TOKENS, CONTEXT, VOCABULARY = 2048, 256, 16384


def training_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one eager step with bf16 autocast on `TOKENS` tokens."""
    tokens = torch.randint(VOCABULARY, (TOKENS // CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=4, help="steps timed without a checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 10, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    training_step(model, optimizer)
    step = statistics.median(training_step(model, optimizer) for _ in range(options.steps))
    stalls, cpu, writes = [], [], []
    with tempfile.TemporaryDirectory() as folder, Checkpointer(Path(folder)) as checkpointer:
        for number in range(1, 4):
            begin = time.perf_counter()
            checkpointer.save(number, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
            stalls.append(time.perf_counter() - begin)
            before = time.process_time()
            checkpointer.wait()
            cpu.append(time.process_time() - before)
            writes.append(time.perf_counter() - begin)
        size = sum(file.stat().st_size for file in step_folder(Path(folder), 3).iterdir())
        begin = time.perf_counter()
        checkpointer.load(3)
        load = time.perf_counter() - begin
    parameters = sum(parameter.numel() for parameter in model.parameters())
    figures = {
        "torch": torch.__version__,
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        "parameters": parameters,
        "bytes": size,
        "step_seconds": step,
        "stall_seconds": {"first": stalls[0], "later": statistics.mean(stalls[1:])},
        "stall_in_steps": {"first": stalls[0] / step, "later": statistics.mean(stalls[1:]) / step},
        "writer_cpu_seconds": statistics.mean(cpu),
        "seconds_until_on_disk": statistics.mean(writes),
        "load_seconds": load,
    }
    print(json.dumps(figures, indent=2))
    worst = max(stalls) / step
    print(f"{parameters / 1e6:.0f}M parameters, {show_bytes(size)}: save stalls training for at most {worst:.2f} steps")


if __name__ == "__main__":
    main()
