"""A small transformer, trained once on made-up learning curves, that goes on with any curve in one forward pass."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from foretrain.forecasts._curve_network import BarDistribution, CurveNetwork
from foretrain.forecasts._grid import Answer, GridForecaster
from foretrain.forecasts.curves import Floats
from foretrain.parts import Facts

WEIGHTS = Path(__file__).with_name("lc_pfn.safetensors")
_AT_ONCE = 128


class LcPfn(GridForecaster):
    """The posterior predictive of a prior over learning curves, learnt by a prior-data fitted network (LC-PFN).

    The network was trained here on 50-point curves of the published prior (sums of a power, a logarithmic and a
    Janoschek curve, rising within [0, 1], with noise) by `python -m foretrain.forecasts._curve_training`. What the
    prior does not hold it cannot foresee: a learning rate that falls late, grokking, divergence.
    """

    kind: Literal["lc_pfn"] = "lc_pfn"
    facts: ClassVar[Facts] = Facts(
        paper="Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks",
        arxiv="2310.20447",
        year=2023,
        answers="how will this learning curve go on?",
    )

    @torch.no_grad()
    def answer(self, x: Floats, y: Floats, asked: Floats) -> Answer:
        network = _network()
        seen = torch.tensor(y, dtype=torch.float32)[None]
        pieces = [
            network(torch.tensor(np.concatenate([x, piece]), dtype=torch.float32)[None], seen)[0]
            for piece in np.array_split(asked, -(-asked.size // _AT_ONCE))
        ]
        return _Bars(network.bars, torch.cat(pieces))


class _Bars(Answer):
    def __init__(self, bars: BarDistribution, logits: torch.Tensor) -> None:
        self.bars, self.logits = bars, logits

    def quantiles(self, levels: Floats) -> Floats:
        return self.bars.quantiles(self.logits, torch.from_numpy(levels)).numpy()

    def log_density(self, values: Floats) -> Floats:
        found = self.bars.log_density(self.logits, torch.tensor(values, dtype=torch.float32))
        return found.double().numpy()


@cache
def _network() -> CurveNetwork:
    network = CurveNetwork()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()
