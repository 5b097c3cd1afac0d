"""Writing: what a merge comes to as a folder of its own, outside of studies, and how such a folder is opened again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.errors import RequestError
from foretrain.exporting import save_model
from foretrain.files import failed_write, read_json, write_json
from foretrain.merging.base import Merge, Merged
from foretrain.merging.members import describe_members
from foretrain.modalities.base import modality_of
from foretrain.parts import PartOf, find, load_plugin, with_plugins
from foretrain.plain_yaml import read_mapping
from foretrain.run_directory import RunDirectory
from foretrain.section import ModelPath, Section, read_section

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "merge.json"


class MergeFile(Section):
    """What `foretrain merge` reads: a merge, and the runs that go into it, where it is one of runs."""

    merge: PartOf[Merge]
    """What is made of what."""
    runs: list[ModelPath] = []
    """Directories of runs that have ended; merges whose fields name all models need none."""
    plugins: list[str] = []
    """Files with merges or rules of your own, as in a recipe."""


def read_merge(path: Path) -> MergeFile:
    """A merge file.

    Raises:
        RequestError: no such file, broken YAML, or faults in it (all of them in one message).
    """
    data = read_mapping(path, "merge file", "merge and runs")
    if "merge" not in data:
        raise RequestError(f"{path} is not a merge file: it should have `merge:`, and `runs:` where it merges runs.")
    data = with_plugins(data, path.parent)
    return read_section(MergeFile, data, str(path), path.parent)


def write_merge(file: MergeFile, folder: Path) -> dict[str, Any]:
    """Do what a merge file says; the folder gets the model, where it is one with weights, and `merge.json`.

    Returns:
        The content of `merge.json`.

    Raises:
        RequestError: the models do not fit together, or the folder holds something else.
        RunError: the folder cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / FILE).is_file():
        raise RequestError(f"--out {folder}: the folder holds other things; name a new one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    runs = [RunDirectory.open(path) for path in file.runs]
    told = file.merge.write(runs, folder)
    told |= {"runs": [str(run.path.resolve()) for run in runs], "plugins": file.plugins}
    write_json(folder / FILE, told)
    return told


def write_merged(merge: Merge, merged: Merged, runs: Sequence[RunDirectory], folder: Path) -> dict[str, Any]:
    """Write what was merged in memory."""
    told = merged.told or {
        "format": 1,
        "merge": merge.model_dump(mode="json"),
        "formula": merge.facts.answers,
        "inputs": [{**member, "path": member["run"]} for member in describe_members(runs)],
        "figures": {},
    }
    model = merged.exported
    if model is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed_write("The merge", folder, error) from error
    else:
        members = "\n".join(f"- {each['name']} (`{each['hash']}`)" for each in told["inputs"])
        card = f"# {folder.name}\n\nMerged with foretrain ({merge.kind}):\n\n{members}\n"
        processor = modality_of(model.config).processor(model.config, getattr(merged.subject, "tokenizer", None))
        save_model(model, processor, card, folder)
    return told


def reopened(folder: Path) -> Merged | None:
    """What was merged without weights of its own, put together again from what its folder names; else None.

    Raises:
        RequestError: what it was made of is not there any more, or is no longer what it was.
    """
    run = RunDirectory(folder)
    if (folder / FILE).is_file() and not (folder / "config.json").is_file():
        told: Mapping[str, Any] = read_json(folder / FILE)
        runs = told["runs"]
    elif run.recipe_path.is_file() and "merge" in run.plan() and not (run.model_path / "config.json").is_file():
        told = {**run.plan(), "plugins": run.load_recipe().plugins}
        runs = [member["run"] for member in told["members"]]
    else:
        return None
    for name in told["plugins"]:
        load_plugin(name)
    part = find(Merge, told["merge"]["kind"]).model_validate(told["merge"])  # type: ignore[type-abstract]
    merged = part.merge([RunDirectory.open(path) for path in runs])
    before = {each["path"]: each["hash"] for each in told.get("inputs", [])}
    for each in merged.told.get("inputs", []):
        if before.get(each["path"], each["hash"]) != each["hash"]:
            raise RequestError(f"{each['path']} is another model than {folder} was made of; merge again.")
    return merged
