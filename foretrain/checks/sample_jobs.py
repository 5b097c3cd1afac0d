"""Jobs that train nothing: what executors are checked with (`foretrain.checks`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretrain.errors import RequestError, RunError


def answer(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Gives back what it is given."""
    return dict(payload)


def fail(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `RunError` with the text `error` of the payload."""
    raise RunError(payload["error"])


def refuse(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `RequestError` with the text `error` of the payload."""
    raise RequestError(payload["error"])
