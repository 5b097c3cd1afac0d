"""What the parts of each family promise: which check is for which family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foretrain.checks import of_curation, of_data, of_forecasts, of_studies, of_training
from foretrain.checks.promises import check_class, check_data
from foretrain.checks.trial import (
    OF_MODALITY,
    Figures,
)
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.formats.base import Format
from foretrain.corpus.scorers.base import Scorer
from foretrain.curation.executors.base import CorpusExecutor
from foretrain.curation.steps.base import CorpusStep
from foretrain.feedback.base import Feedback
from foretrain.forecasts.base import Forecaster
from foretrain.growth.base import Growth
from foretrain.images.builtin.base import ImageBuiltin
from foretrain.images.formats.base import ImageFormat
from foretrain.merging.base import Merge
from foretrain.merging.rules.base import Rule
from foretrain.modalities.base import Modality
from foretrain.models.base import Model
from foretrain.objectives.base import Objective
from foretrain.optim.base import Optimizer
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Part
from foretrain.probes.base import Probe
from foretrain.schedules.base import Schedule
from foretrain.steering.base import Steering
from foretrain.studies.executors.base import Executor
from foretrain.studies.stopping.base import Stopping
from foretrain.tasks.base import Task
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.tokenizers.base import Tokenizer
from foretrain.trackers.base import Tracker


def check_part(part: Part, recipe: Mapping[str, Any] | None = None) -> None:
    """Check a part of any family: what every part promises, and what its family does.

    Args:
        part: with the settings to try.
        recipe: top-level keys of the trial recipe to replace, for parts that need something of it (`feedback`, another
            `model`).

    Raises:
        AssertionError: a promise is not kept; the message names it.
    """
    check_class(type(part))
    check_data(part)
    for base, check in FAMILIES.items():
        if isinstance(part, base):
            check(part, {**OF_MODALITY.get(part.modality, {}), **(recipe or {})})


FAMILIES: dict[type[Part], Callable[[Any, Figures], None]] = {
    Builtin: of_data.check_builtin,
    CorpusExecutor: of_curation.check_corpus_executor,
    CorpusStep: of_curation.check_corpus_step,
    DocumentOrder: of_data.check_order,
    Executor: of_studies.check_executor,
    Forecaster: of_forecasts.check_forecaster,
    Format: of_data.check_format,
    Growth: of_data.check_growth,
    ImageBuiltin: of_data.check_image_set,
    ImageFormat: of_data.check_image_format,
    Merge: of_studies.check_merge,
    Modality: of_data.check_modality,
    Model: of_data.check_model,
    Objective: of_training.check_objective,
    Optimizer: of_training.check_optimizer,
    Parametrization: of_training.check_parametrization,
    Probe: of_training.check_probe,
    Rule: of_studies.check_rule,
    Schedule: of_training.check_schedule,
    Scorer: of_data.check_scorer,
    Steering: of_training.check_steering,
    Stopping: of_studies.check_stopping,
    Task: of_training.check_task,
    Feedback: of_data.check_feedback,
    Tokenizer: of_data.check_tokenizer,
    Tracker: of_studies.check_tracker,
}
