"""Job: one call of a function by its name, with plain data in and out; and what came of it.

A job is the same wherever it runs: in this process, in a worker, on another machine. This module imports nothing of
training, so that a worker starts at once and pays only for what its jobs import.
"""

from __future__ import annotations

import contextlib
import json
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from foretrain.errors import ForetrainError, Interrupted, RequestError
from foretrain.lock import patient

LOCK_SECONDS = 60.0
"""How long a job waits for a run directory that an orphan of a killed study still writes."""

Status = Literal["done", "failed", "refused", "interrupted"]


@dataclass(frozen=True)
class Job:
    """One call of a function.

    Args:
        name: what people call it (`heavy, seed 3`).
        call: `module:function`; imported where the job runs. It is given the payload and gives back a dict.
        payload: plain JSON data (dicts with text keys, lists, text, finite numbers, booleans, None).

    Raises:
        ValueError: `call` is not of that form.
        TypeError: the payload holds something else; the message names its place.
    """

    name: str
    call: str
    payload: dict[str, Any]

    def __post_init__(self) -> None:
        module, colon, function = self.call.partition(":")
        if not (colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(f"The job '{self.name}' should call 'module:function', not {self.call!r}.")
        if odd := _not_plain(self.payload, "payload"):
            raise TypeError(f"The job '{self.name}' cannot be sent: {odd}.")

    def plain(self) -> dict[str, Any]:
        """As plain data; `Job(**plain)` is the same job."""
        return {"name": self.name, "call": self.call, "payload": self.payload}


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        job: the job.
        result: what its function gave; None unless it is done.
        error: one paragraph for people; None if it is done.
        status: `done`; `failed` (a RunError, a fault of ours, a dead worker); `refused` (a RequestError); `interrupted`
            (it was asked to stop, and goes on where it stood when it is run again).
    """

    job: Job
    result: dict[str, Any] | None
    error: str | None
    status: Status

    def plain(self) -> dict[str, Any]:
        """As plain data, without the job; `Outcome(job, **plain)` is the same outcome."""
        return {"result": self.result, "error": self.error, "status": self.status}


def interrupted(job: Job, error: str = "It was stopped; run again, it goes on from its last checkpoint.") -> Outcome:
    """The outcome of a job that was stopped."""
    return Outcome(job, None, error, "interrupted")


def perform(job: Job, log: Path) -> Outcome:
    """Run a job in this process. Whatever it raises becomes an outcome, Ctrl-C included.

    Args:
        job: what is run.
        log: file that the traceback of a fault is added to.
    """
    module, _, function = job.call.partition(":")
    try:
        with patient(LOCK_SECONDS):
            result = getattr(import_module(module), function)(job.payload)
        odd = None if isinstance(result, dict) else f"result is a {type(result).__name__}, not a dict"
        if odd := odd or _not_plain(result, "result"):
            return Outcome(job, None, f"{job.call} gave what is no plain data: {odd}.", "failed")
        return Outcome(job, json.loads(json.dumps(result)), None, "done")
    except RequestError as error:
        return Outcome(job, None, str(error), "refused")
    except Interrupted as error:
        return interrupted(job, str(error))
    except KeyboardInterrupt:
        return interrupted(job)
    except ForetrainError as error:
        return Outcome(job, None, str(error), "failed")
    except (Exception, SystemExit) as error:
        _keep_traceback(job, log)
        last = traceback.format_exception_only(type(error), error)[-1].strip().splitlines()[0]
        return Outcome(job, None, f"A fault in {job.call}: {last} (the traceback is in {log}).", "failed")


def _keep_traceback(job: Job, log: Path) -> None:
    # A disk too full for the traceback shouldn't hide the error itself.
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as handle:
            handle.write(f"{job.name} ({job.call})\n{traceback.format_exc()}\n")


def _not_plain(value: Any, place: str) -> str | None:
    """What in a tree would not come out of JSON as it went in, and where; None if all of it would."""
    if value is None or isinstance(value, str | bool | int):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{place} is {value}"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                return f"{place} has the key {key!r}, which is no text"
        parts = ((item, f"{place}.{key}") for key, item in value.items())
    elif isinstance(value, list | tuple):
        parts = ((item, f"{place}[{i}]") for i, item in enumerate(value))
    else:
        return f"{place} is a {type(value).__name__}"
    return next(filter(None, (_not_plain(item, inside) for item, inside in parts)), None)
