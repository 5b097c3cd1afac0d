"""Trains the network of `lc_pfn` on curves of its prior and writes its weights into the package.

    python -m foretrain.forecasts._curve_training [--steps 4000] [--out lc_pfn.safetensors]

The same command gives the same weights on the same machine. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from foretrain.forecasts import _curve_prior as prior
from foretrain.forecasts._curve_network import BUCKETS, CurveNetwork
from foretrain.hashing import seed_from

_POOL, _BATCH, _LR, _WARMUP = 100_000, 64, 1e-3, 0.1


def train(steps: int, pool: int = _POOL, show: int = 200) -> CurveNetwork:
    """Train for some steps on a pool of curves, with fresh noise in every batch.

    Args:
        steps: batches of 64 curves, each cut at one place that is uniform over the curve.
        pool: curves that are drawn once.
        show: print the mean loss every so many steps; 0: never.
    """
    generator = np.random.default_rng(seed_from("lc-pfn-training"))
    torch.manual_seed(seed_from("lc-pfn-weights"))
    clean, sigma = prior.curves(pool, generator), prior.noise(pool, generator)
    network = CurveNetwork()
    noisy = clean[:10_000] + sigma[:10_000, None] * generator.standard_normal((min(pool, 10_000), prior.LENGTH))
    borders = np.quantile(noisy, np.linspace(0, 1, BUCKETS + 1))
    network.borders.copy_(torch.from_numpy(borders))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=0.0)
    rise = max(1, round(_WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise)))),
    )
    x = torch.arange(1, prior.LENGTH + 1, dtype=torch.float32).expand(_BATCH, -1)
    losses: list[float] = []
    for step in range(steps):
        rows = generator.integers(0, pool, _BATCH)
        drawn = clean[rows] + sigma[rows, None] * generator.standard_normal((_BATCH, prior.LENGTH))
        y = torch.from_numpy(drawn.astype(np.float32))
        cut = int(generator.integers(1, prior.LENGTH))
        loss = -network.bars.log_density(network(x, y[:, :cut]), y[:, cut:]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if show and (step + 1) % show == 0:
            print(f"step {step + 1}: {np.mean(losses[-show:]):.4f}", flush=True)
    return network


def save(network: CurveNetwork, path: Path) -> None:
    """The weights as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=4000)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("lc_pfn.safetensors"))
    given = options.parse_args()
    save(train(given.steps), given.out)
