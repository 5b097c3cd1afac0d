"""Growth: how a larger model gets its first weights from a smaller one that was trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from transformers import PretrainedConfig

from foretrain.growth.network import Network
from foretrain.parts import Part


class Growth(Part):
    """A rule of growth: weights of one shape become weights of another, wider or deeper.

    Rules act one after the other, in the order of the recipe; each brings the network closer to the target, in the
    sizes that it knows how to change, and leaves the others as they are. A rule is a function of weights and shapes:
    what it draws comes from the seed.
    """

    axis: ClassVar[str] = "growth"

    @abstractmethod
    def shape(self, source: PretrainedConfig, target: PretrainedConfig) -> PretrainedConfig:
        """The config of what comes out, of a network of config `source` that is on its way to `target`.

        Raises:
            RequestError: this rule cannot make the one of the other.
        """

    @abstractmethod
    def grow(self, source: Network, target: PretrainedConfig, seed: int) -> Network:
        """The grown network; `target` is what `shape` gave. The source's own tensors are not changed."""

    def notes(self, source: PretrainedConfig, target: PretrainedConfig) -> Iterable[str]:
        """What a user should know before compute is spent; arguments as those of `grow`."""
        return ()
