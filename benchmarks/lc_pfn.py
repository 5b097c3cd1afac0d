"""How near the network of `lc_pfn` comes to the posterior of its prior, on fresh curves of that prior.

    python benchmarks/lc_pfn.py [--curves 200]

For cuts after 10, 20 and 30 of 50 points: mean negative log-likelihood of the noisy rest, the share of it within 90 %
intervals, and milliseconds a curve.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from foretrain.forecasts import _curve_prior as prior
from foretrain.forecasts.base import Forecaster
from foretrain.forecasts.curve_families import CurveFamilies
from foretrain.forecasts.curve_posterior import CurvePosterior
from foretrain.forecasts.curves import Curve
from foretrain.forecasts.last_value import LastValue
from foretrain.forecasts.lc_pfn import LcPfn
from foretrain.hashing import seed_from

CUTS = (10, 20, 30)
PARTS: dict[str, Forecaster] = {
    "network": LcPfn(scale="unit"),
    "posterior": CurvePosterior(scale="unit"),
    "families": CurveFamilies(scale="unit"),
    "last": LastValue(window=0),
}


def fresh(count: int) -> list[Curve]:
    """Noisy curves of the prior that no training has seen."""
    generator = np.random.default_rng(seed_from("lc-pfn-fresh"))
    noise = prior.noise(count, generator)[:, None] * generator.standard_normal((count, prior.LENGTH))
    drawn = prior.curves(count, generator) + noise
    steps = np.arange(1, prior.LENGTH + 1)
    return [Curve(f"{number}", steps, values=values, total=prior.LENGTH) for number, values in enumerate(drawn)]


def measured(part: Forecaster, curves: list[Curve], cut: int) -> tuple[float, float]:
    """Negative log-likelihood, and the share within 90 % intervals."""
    losses, within = [], []
    for curve in curves:
        rest = curve.between(cut + 1, prior.LENGTH)
        fitted = part.fit([curve.between(1, cut)])
        losses.append(-fitted.log_density(rest, rest.values).mean())
        low, high = fitted.quantiles(rest, [0.05, 0.95])
        within.append(((low <= rest.values) & (rest.values <= high)).mean())
    return float(np.mean(losses)), float(np.mean(within))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--curves", type=int, default=200)
    drawn = fresh(options.parse_args().curves)
    for cut in CUTS:
        for name, part in PARTS.items():
            measured(part, drawn[:1], cut)  # weights are read and curves drawn once
            began = time.process_time()
            loss, share = measured(part, drawn, cut)
            took = 1000 * (time.process_time() - began) / len(drawn)
            print(f"cut {cut}  {name:10} nll {loss:7.3f}  within {100 * share:5.1f} %  {took:7.2f} ms", flush=True)
