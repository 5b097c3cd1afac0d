"""Average the logits of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from foretrain.merging.base import Merge, Merged
from foretrain.merging.logits import CombinedLogits, CombinedSubject, mean, member_of, refuse_other_logits
from foretrain.merging.members import check_members
from foretrain.parts import Facts

if TYPE_CHECKING:
    from foretrain.run_directory import RunDirectory


class Ensemble(Merge):
    """The members' logits averaged, and normalised after: their distributions' geometric mean.

    Members are runs that differ in their seed (initialisation and order of data), or in anything but the tokenizer and
    the context. One use costs a forward pass of every member.
    """

    kind: Literal["ensemble"] = "ensemble"
    facts: ClassVar[Facts] = Facts(
        paper="Pre-training under infinite compute",
        arxiv="2509.14786",
        year=2025,
        answers="what is the model? several runs, asked together",
        overhead="as many forward passes at use as there are members",
    )

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        check_members(runs)
        members, tokenizers = zip(*map(member_of, runs), strict=True)
        refuse_other_logits(members, [str(run.path) for run in runs])
        context = int(runs[0].plan()["model"]["context"])
        subject = CombinedSubject(members, mean, tokenizers[0], context)
        return Merged(CombinedLogits(members, mean), subject, inference=len(members))
