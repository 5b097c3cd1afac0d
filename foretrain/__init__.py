"""foretrain: pre-training and continual pre-training, steered by feedback and compared at a matched budget.

Everything the command line does is one call here: `import foretrain as ft; ft.run("recipe.yaml")`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretrain.api import (
        check,
        compare,
        demo,
        evaluate,
        export,
        flips,
        forecast,
        ledger,
        list_claims,
        list_runs,
        load_recipe,
        make_recipe,
        merge,
        noise,
        open_run,
        report,
        run,
        run_claim,
        sample,
        show_claim,
        show_data,
        study,
    )

__version__ = "0.1.0"
__all__ = [
    "check",
    "compare",
    "demo",
    "evaluate",
    "export",
    "flips",
    "forecast",
    "ledger",
    "list_claims",
    "list_runs",
    "load_recipe",
    "make_recipe",
    "merge",
    "noise",
    "open_run",
    "report",
    "run",
    "run_claim",
    "sample",
    "show_claim",
    "show_data",
    "study",
]


def __getattr__(name: str) -> Any:
    # Only what is asked for is imported: `import foretrain` stays light.
    if name in __all__:
        return getattr(import_module("foretrain.api"), name)
    raise AttributeError(f"module 'foretrain' has no attribute '{name}'")
