"""What can go wrong, in words for people.

Every error a user can cause or meet is a `ForetrainError`. Its text is one paragraph: what is wrong, where
(file, field, line), and what would be right. The command line prints that paragraph and exits with `exit_code`;
a traceback is only ever shown for a fault of our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetrainError(Exception):
    """Base of all errors meant for people. `exit_code` is what the command line returns."""

    exit_code = 1


class RequestError(ForetrainError):
    """The request was wrong: a recipe, an option, an input file. Nothing was computed; exit code 2."""

    exit_code = 2


class RunError(ForetrainError):
    """The run failed: a non-finite loss, a full disk, a lost worker; exit code 1."""

    exit_code = 1


class Interrupted(ForetrainError):
    """The run was asked to stop, wrote a checkpoint and can be resumed by the same command; exit code 3."""

    exit_code = 3


class CorruptFile(RunError):
    """A file that foretrain wrote no longer matches its checksum or format version."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, or None if none is close enough to be a misspelling of it."""
    choices = sorted(set(valid))
    found = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if found:
        return found[0]
    inside = [choice for choice in choices if name and (name in choice or choice in name)]
    return inside[0] if inside else None


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """One sentence on an unknown name: what it was meant to be, the nearest valid one, or all that there are."""
    choices = sorted(set(valid))
    guess = nearest(name, choices)
    if guess is not None:
        return f"there is no {what} '{name}'; did you mean '{guess}'?"
    listing = ", ".join(choices) if choices else "none"
    return f"there is no {what} '{name}'; there are: {listing}."
