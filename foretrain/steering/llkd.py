"""Learn where a teacher is sure and the learner is not (arXiv 2411.08028)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foretrain.parts import Facts
from foretrain.steering._two_gates import TwoGates


class Llkd(TwoGates):
    """Only text that the teacher is confident of and the learner is uncertain of counts, by the product of both.

    The paper selects unlabelled texts, which the teacher has labelled, for a classifier. Here the label of a token is
    the token that stands there: the teacher's confidence c is the probability that it gives it, and the learner's
    uncertainty u is 1 minus its own (for soft targets, e to the minus cross-entropy stands in the place of the
    probability); a row has their means. A low c says that the text is not to be believed, as a low confidence in a
    pseudo-label does; a low u, that it is known. The class, of which each has its own thresholds, is the domain: all
    that a batch of text tells of a row, and it holds enough tokens for a mean (a token's own id does not).

    A threshold is the running mean of its signal, times the running mean over the class, over the largest such mean of
    a class: a class that is told less well, or known better, is asked for less. Confidence is averaged over everything,
    uncertainty over what passes by its confidence; else what is never selected, and so never learned, raises the mean
    until nothing passes (0.6 % of the tokens in a run of 240 steps that unlearned the rest). What has `c >= threshold`
    and `u >= threshold` is weighed by c u, with mean 1 over all loss tokens of the global batch, so that the loss is a
    weighted mean over what was selected, however little that is; the rest has weight 0. Where nothing passes the
    gradient is 0: what the optimizer remembers, and weight decay, still move the weights a little, and the run says so.

    It is for learners that know something already, as the paper's do; while all is uncertain, `burn_in` has everything
    count. And it is for choosing right rather than for probabilities: tokens are selected by what they turned out to
    be, so that a learner of them expects too much of their kind. A small one that went on for 150 steps on a tenth of
    the tokens was right as often as on all of them (26 %), at a loss of 4.6 against 3.7.

    `confidence: 0` leaves uncertainty alone to decide, `uncertainty: 0` confidence, and both 0 nobody: these are the
    controls of one gate, at the same cost. Figures: `used` (share of the loss tokens that were selected), `NAME/used`
    (of a domain's), `tokens` (how many so far), `ess` (effective sample as a share of all loss tokens), `confidence`
    and `uncertainty` (running means).
    """

    kind: Literal["llkd"] = "llkd"
    facts: ClassVar[Facts] = Facts(
        paper="Learning with Less: Knowledge Distillation from Large Language Models via Unlabeled Data",
        arxiv="2411.08028",
        year=2024,
        answers="weigh: which tokens are worth learning, by a teacher and by the learner?",
        needs=("batch_losses",),
        overhead="a forward pass of the teacher; one of the learner more where a forward pass does not hold the batch",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"confidence": 0.0, "uncertainty": 0.0}
