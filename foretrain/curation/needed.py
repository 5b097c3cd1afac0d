"""Packages that only curation needs: imported where they are used, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

from foretrain.errors import RequestError


def require(module: str, extra: str = "curate") -> Any:
    """A module of the extra `[curate]` (or of another one).

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise RequestError(
            f"foretrain corpus build needs the package '{missing.partition('.')[0]}' (for {module}), which is not "
            f"installed. Install it with pip install 'foretrain[{extra}]'."
        ) from error
