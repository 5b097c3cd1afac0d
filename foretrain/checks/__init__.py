"""Checks: whether a part keeps the promises of its family. The project's own parts pass them; yours can too.

    from foretrain.checks import check_part
    check_part(Surprise(strength=0.5))

A part that does not pass raises an `AssertionError` that says what was promised. What is checked by running runs on a
tiny model and embedded text, within a second or two.
"""

from foretrain.checks.families import FAMILIES, check_part

__all__ = ["FAMILIES", "check_part"]
