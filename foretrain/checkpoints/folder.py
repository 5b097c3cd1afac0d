"""One checkpoint's folder: how it is written, published under its name, verified and read.

Other processes of a run, and other runs, read checkpoints through these functions; only the run's own process writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

import foretrain
from foretrain import faults
from foretrain.checkpoints.tensors import ChecksumWriter, plan_files, read_tensors, write_tensors
from foretrain.checkpoints.tree import decode, encode, names_in
from foretrain.errors import CorruptFile, unknown_name
from foretrain.files import sync_folder

FORMAT = 1
"""Version of the checkpoint format."""
_NAME = re.compile(r"step-(\d{8,})")
_MANIFEST, _STRUCTURE = "manifest.json", "structure.json"
_READERS = 4


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says of a checkpoint."""

    step: int
    metric: float | None
    """What "best" is judged by; lower is better. None where it was not measured."""
    metadata: Any
    """Whatever the writer noted beside the tree."""
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and CRC-32 of every other file."""
    passing: bool = False
    """Whether it was written off the schedule, to resume from, and does not count among those that are kept."""


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def list_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, rising; none if there is no such folder."""
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(child.name) for child in folder.iterdir() if child.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def write_checkpoint(
    path: Path, structure: Any, tensors: Mapping[str, Tensor], manifest: Manifest, largest: int
) -> None:
    """Write an encoded tree into a new folder and flush it; the manifest comes last.

    Args:
        path: the folder to make.
        structure: JSON-able part of the tree.
        tensors: contiguous CPU tensors by name.
        manifest: step, metric and metadata; its files are filled in here.
        largest: bytes per tensor file.
    """
    path.mkdir(parents=True)
    files: dict[str, dict[str, Any]] = {}

    def sum_up(name: str, writer: ChecksumWriter) -> None:
        files[name] = {"bytes": writer.bytes, "crc32": f"{writer.crc32:08x}"}

    for number, names in enumerate(plan_files(tensors, largest), start=1):
        with ChecksumWriter(path / f"tensors-{number:05d}.safetensors") as writer:
            write_tensors(writer, {name: tensors[name] for name in names})
        sum_up(f"tensors-{number:05d}.safetensors", writer)
    faults.reach("mid-checkpoint")
    with ChecksumWriter(path / _STRUCTURE) as writer:
        writer.write(json.dumps(structure, separators=(",", ":")).encode())
    sum_up(_STRUCTURE, writer)
    content = {
        "format": FORMAT,
        "foretrain": foretrain.__version__,
        "step": manifest.step,
        "metric": manifest.metric,
        "metadata": encode(manifest.metadata)[0],
        "passing": manifest.passing,
        "files": files,
    }
    with ChecksumWriter(path / _MANIFEST) as writer:
        writer.write(json.dumps({**content, "crc32": _sum_of(content)}, indent=2).encode())
    sync_folder(path)


def publish(temporary: Path, final: Path) -> None:
    """Give a complete checkpoint its name; one that had it is replaced, and at every instant one of them is on disk."""
    old = final.with_name(f".old-{final.name}")
    if final.exists():
        discard(old)
        os.rename(final, old)
    faults.reach("mid-rename")
    os.rename(temporary, final)
    sync_folder(final.parent)
    discard(old)


def discard(path: Path) -> None:
    """Delete a folder; it loses its name first, so that a half-deleted checkpoint never looks like a whole one."""
    if path.exists():
        trash = path.with_name(f".trash-{path.name.lstrip('.')}")
        shutil.rmtree(trash, ignore_errors=True)
        os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)


def clean(folder: Path) -> None:
    """Undo what a killed process left half done: only the process that owns the run may."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name.startswith(".old-"):
            final = folder / child.name.removeprefix(".old-")
            if final.exists():
                discard(child)
            else:
                os.rename(child, final)
        elif child.name.startswith((".tmp-", ".trash-")):
            shutil.rmtree(child, ignore_errors=True)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint's folder.

    Raises:
        CorruptFile: there is none, it is damaged, or it is of another version; the message says which file.
    """
    try:
        content = json.loads((path / _MANIFEST).read_bytes())
        if content["format"] != FORMAT:
            raise CorruptFile(
                f"The checkpoint {path} is of format {content['format']}, written by foretrain "
                f"{content.get('foretrain')}; this is foretrain {foretrain.__version__}, which reads format {FORMAT}"
            )
        if content.pop("crc32") != _sum_of(content):
            raise ValueError("it does not match its checksum")
        files = {str(name): (int(file["bytes"]), int(file["crc32"], 16)) for name, file in content["files"].items()}
        metadata = decode(content["metadata"], {})
        return Manifest(int(content["step"]), content["metric"], metadata, files, content.get("passing", False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"The checkpoint {path} is damaged: {_MANIFEST} cannot be read ({error})") from error


def read_checkpoint(path: Path, only: Collection[str] | None = None) -> Any:
    """The tree of a checkpoint's folder, every byte read checked against its checksum; tensors on the CPU.

    Args:
        path: the folder (`step_folder`).
        only: these top-level entries of the tree alone (a dict); files that hold nothing of them are not read in.

    Raises:
        CorruptFile: something in it isn't what was written; the message names the file.
        KeyError: the tree has no such entry.
    """
    manifest = read_manifest(path)
    try:
        structure = _read_structure(path, manifest)
        if only is not None:
            for name in only:
                if name not in structure:
                    raise KeyError(unknown_name("entry of the checkpoint", name, structure))
            structure = {name: structure[name] for name in only}
        wanted = None if only is None else names_in(structure)

        def read(name: str) -> dict[str, Tensor]:
            return read_tensors(path / name, *manifest.files[name], only=wanted)

        names = [name for name in manifest.files if name != _STRUCTURE]
        tensors: dict[str, Tensor] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for part in pool.map(read, names):
                tensors |= part
    except CorruptFile as error:
        raise CorruptFile(f"The checkpoint {path} is damaged: {error}") from error
    try:
        return decode(structure, tensors)
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptFile(
            f"The checkpoint {path} is damaged: {_STRUCTURE} does not fit its tensors ({error})"
        ) from error


def _read_structure(path: Path, manifest: Manifest) -> Any:
    try:
        data = (path / _STRUCTURE).read_bytes()
        if (len(data), zlib.crc32(data)) != manifest.files[_STRUCTURE]:
            raise CorruptFile(f"{_STRUCTURE} does not match its checksum")
        return json.loads(data)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFile(f"{_STRUCTURE} cannot be read ({error})") from error


def _sum_of(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
