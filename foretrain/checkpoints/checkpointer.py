"""Checkpointer: writes a run's checkpoints while it trains on, keeps the right ones, finds the newest good one."""

from __future__ import annotations

import errno
import math
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from foretrain.checkpoints.folder import (
    Manifest,
    clean,
    discard,
    list_steps,
    publish,
    read_checkpoint,
    read_manifest,
    step_folder,
    write_checkpoint,
)
from foretrain.checkpoints.tree import decode, encode
from foretrain.errors import CorruptFile, RequestError, RunError, unknown_name
from foretrain.files import failed_write, free_bytes, sync_folder

LARGEST_FILE = 2 << 30
"""Bytes of tensors per file."""
_SPARE = 1 << 20
"""Bytes of free disk asked for beyond the tensors: structure, manifest, folder."""


class Checkpointer:
    """The checkpoints of one run.

    `save` copies the tree's tensors into buffers that are kept for the next time (as much CPU memory as the tree has
    bytes; pinned where tensors come from a GPU) and returns; a thread writes them. One write is under way at most. If
    it fails, the next call of `poll`, `wait`, `save` or `close` says so, and the checkpoints before it are untouched.

    Exactly one process may own a run's checkpoints (it holds the `RunLock`); the others read with `owner=False`.

    Args:
        folder: where the checkpoints lie, each in `step-XXXXXXXX`.
        keep: how many of the newest are kept.
        best: whether the one with the lowest metric is kept too.
        warn: is told in words about what was skipped or set aside.
        owner: whether this process may write, clean up and set aside.
        largest: bytes of tensors per file.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        *,
        best: bool = True,
        warn: Callable[[str], None] = warnings.warn,
        owner: bool = True,
        largest: int = LARGEST_FILE,
    ) -> None:
        if keep < 1:
            raise RequestError(f"checkpoint.keep: at least one checkpoint has to be kept (given: {keep}).")
        self.folder, self.keep, self.best, self.warn, self.owner, self.largest = (
            folder,
            keep,
            best,
            warn,
            owner,
            largest,
        )
        self._buffers: dict[str, Tensor] = {}
        self._manifests: dict[int, Manifest] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        if owner:
            clean(folder)

    # Writing -------------------------------------------------------------------------------------------------------

    def save(
        self, step: int, tree: Any, metadata: Any = None, metric: float | None = None, passing: bool = False
    ) -> None:
        """Start to write the checkpoint of a step; the tree may change as soon as this returns.

        Checkpoints of later steps belong to a course of the run that was given up; they go once this one is on disk.

        Args:
            step: optimizer steps finished.
            tree: dicts, lists, tuples, tensors, arrays and plain values (see `tree`); it comes back equal, with tensors
                contiguous and on the CPU.
            metadata: plain data that can be read without the tree (`manifest`).
            metric: what "best" is judged by (lower is better); None or a non-finite number: never the best.
            passing: it is written off the schedule, to resume from: it is not one of the `keep` newest, and goes with
                the next one. So which checkpoints a run leaves does not depend on where it was interrupted.

        Raises:
            RunError: the write before this one failed, or the disk has too little room for this one.
        """
        assert self.owner, "only the owner of a run writes checkpoints"
        self.wait()
        metric = None if metric is None or not math.isfinite(metric) else float(metric)
        manifest = Manifest(step, metric, decode(encode(metadata)[0], {}), passing=passing)
        structure, tensors = encode(tree)
        self._ask_for_room(step, sum(tensor.nbytes for tensor in tensors.values()) + _SPARE)
        copies = self._copy(tensors)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = self._thread.submit(self._write, structure, copies, manifest)

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing is not None and not self._writing.done()

    def poll(self) -> None:
        """Raise the error of a write that has failed by now; never waits."""
        if not self.writing:
            self.wait()

    def wait(self) -> None:
        """Wait until the write under way, if any, is on disk.

        Raises:
            RunError: it failed; said once.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait, then free the buffers and the thread; closing twice is fine."""
        try:
            self.wait()
        finally:
            self._buffers.clear()
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunError as failed:
            if error is None:
                raise
            # What is already on its way up is the reason the run ends; this comes on top.
            self.warn(str(failed))

    def _ask_for_room(self, step: int, needed: int) -> None:
        if free_bytes(self.folder) < needed:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise failed_write(f"The checkpoint of step {step}", self.folder, full, needed)

    def _copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        devices: set[torch.device] = set()
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name] = buffer.copy_(tensor, non_blocking=tensor.is_cuda)
            if tensor.is_cuda:
                devices.add(tensor.device)
        for device in devices:
            torch.cuda.synchronize(device)
        self._buffers = copies
        return copies

    def _write(self, structure: Any, tensors: Mapping[str, Tensor], manifest: Manifest) -> None:
        step = manifest.step
        temporary = self.folder / f".tmp-step-{step:08d}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            write_checkpoint(temporary, structure, tensors, manifest, self.largest)
            publish(temporary, step_folder(self.folder, step))
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            needed = sum(tensor.nbytes for tensor in tensors.values())
            raise failed_write(f"The checkpoint of step {step}", self.folder, error, needed) from error
        self._manifests[step] = manifest
        try:
            self._prune(step)
        except OSError as error:
            self.warn(f"An old checkpoint in {self.folder} could not be deleted: {error.strerror or error}.")

    def _prune(self, step: int) -> None:
        steps = list_steps(self.folder)
        past = [other for other in steps if other <= step]
        scheduled = [other for other in past if not self._manifest(other).passing]
        kept = {step, *scheduled[-self.keep :]}
        if self.best:
            measured = [(metric, -other) for other in scheduled if (metric := self._manifest(other).metric) is not None]
            kept |= {-min(measured)[1]} if measured else set()
        for other in steps:
            if other not in kept:
                discard(step_folder(self.folder, other))

    def _manifest(self, step: int) -> Manifest:
        if step not in self._manifests:
            try:
                self._manifests[step] = read_manifest(step_folder(self.folder, step))
            except CorruptFile:
                self._manifests[step] = Manifest(step, None, None)
        return self._manifests[step]

    # Reading -------------------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, rising."""
        return list_steps(self.folder)

    def manifest(self, step: int) -> Manifest:
        """Step, metric and metadata of one checkpoint."""
        return read_manifest(step_folder(self.folder, step))

    def load(self, step: int, only: Collection[str] | None = None) -> Any:
        """The tree of one checkpoint (or `only` some of its top-level entries), verified.

        Raises:
            RequestError: there is no checkpoint of that step.
            CorruptFile: it is damaged.
        """
        if step not in self.steps():
            raise RequestError(
                f"{self.folder}: {unknown_name('checkpoint of step', str(step), map(str, self.steps()))}"
            )
        return read_checkpoint(step_folder(self.folder, step), only)

    def load_newest(self) -> tuple[int, Any] | None:
        """The newest checkpoint that is whole, as (step, tree); None if the run has none yet.

        Newer ones that are damaged or of another version are told to `warn` and, by the owner, set aside under another
        name, so that they neither count as kept nor are lost.

        Raises:
            RunError: there are checkpoints, but none of them can be used.
        """
        self.wait()
        unusable: dict[int, CorruptFile] = {}
        for step in reversed(self.steps()):
            try:
                tree = read_checkpoint(step_folder(self.folder, step))
            except CorruptFile as error:
                unusable[step] = error
                continue
            for bad, reason in unusable.items() if self.owner else ():
                aside = self._set_aside(bad)
                self.warn(f"{reason}. Using step {step} instead; the unusable one was set aside as {aside.name}.")
            return step, tree
        if unusable:
            newest = next(iter(unusable.values()))
            raise RunError(
                f"None of the {len(unusable)} checkpoints in {self.folder} can be used. {newest}. "
                "Put back a good copy, or start the run again with --restart."
            ) from newest
        return None

    def _set_aside(self, step: int) -> Path:
        path = step_folder(self.folder, step)
        aside = path.with_name(f"unusable-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        sync_folder(self.folder)
        return aside
