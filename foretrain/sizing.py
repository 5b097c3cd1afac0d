"""Sizing: how many steps a budget in FLOPs buys, and what each kind of them costs, found by a rehearsal."""

from __future__ import annotations

from foretrain.budget import Pace, steps_for
from foretrain.distributed import Group
from foretrain.plan import Plan
from foretrain.recipe import Budget
from foretrain.trainer import Trainer

FAR = 1000
"""Steps that a run is first thought to have, where its budget does not say."""
ROUNDS = 4
"""How often a number of steps is planned with anew, at most."""


def sized(plan: Plan, budget: Budget, group: Group) -> tuple[int, Pace, Trainer]:
    """Steps that a budget (not one in minutes) buys, what they cost, and the trainer that said so.

    Where kinds of step differ in cost, which step is of which kind may depend on how many there are: then the number
    that was found is planned with, until it stays. A kind may begin later than was looked: so too where there are more.

    Raises:
        RequestError: the budget does not pay for one step.
    """
    trainer = Trainer(plan, FAR, group)
    for _ in range(ROUNDS):
        total, pace = trainer.total, trainer.rehearse(0, 0)
        steps = steps_for(budget, plan.tokens_per_step, pace, trainer.kind, spent=0.0, beside=lambda steps: 0.0)
        if steps == total or (len(pace.flops) == 1 and steps < total):
            break
        del trainer  # there is room for one model
        trainer = Trainer(plan, steps, group)
    return steps, pace, trainer
