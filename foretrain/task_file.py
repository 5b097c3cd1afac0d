"""TaskFile: a YAML file with `tasks:`, for commands that measure a model on other tasks than its recipe has."""

from __future__ import annotations

from pathlib import Path

from foretrain.errors import RequestError
from foretrain.parts import PartOf
from foretrain.recipe import read_recipe
from foretrain.section import Section, read_section
from foretrain.tasks.base import Task


class TaskFile(Section):
    """What of such a file is read."""

    tasks: dict[str, PartOf[Task]]
    """Tasks by name, as in a recipe."""


def read_tasks(path: Path, kind: str = "...") -> dict[str, Task]:
    """The tasks of a file; relative paths in it start at its folder.

    Args:
        path: of the file.
        kind: of the tasks that are wanted, for the words about a file without any.

    Raises:
        RequestError: no such file, broken YAML, no tasks, or faults in them (all of them in one message).
    """
    given = read_recipe(path).get("tasks")
    if not isinstance(given, dict) or not given:
        raise RequestError(f"{path} should be a YAML file with a mapping `tasks:`, each {{kind: {kind}, path: ...}}.")
    return read_section(TaskFile, {"tasks": given}, str(path), path.parent).tasks
