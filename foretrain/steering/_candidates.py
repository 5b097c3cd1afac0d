"""How many candidate targets a token can have, for parts that spread a target over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretrain.errors import RequestError

if TYPE_CHECKING:
    from foretrain.context import Context


def check_candidates(kind: str, candidates: int, context: Context) -> None:
    """See that the model predicts tokens, and as many as that.

    Raises:
        RequestError: it predicts fewer, or none.
    """
    vocabulary = getattr(context.learner.model.config, "vocab_size", None)
    if vocabulary is None:
        raise RequestError(
            f"steering '{kind}' spreads targets over tokens, but model '{context.recipe.model.kind}' under objective "
            f"'{context.objective.kind}' predicts none; it is for models of text."
        )
    if candidates > vocabulary:
        raise RequestError(
            f"steering '{kind}': {candidates} candidates a token are more than the {vocabulary} ids of the vocabulary; "
            "lower `candidates`."
        )
