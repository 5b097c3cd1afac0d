"""Checkpoints: atomic, checksummed, written while training goes on, and free of pickle.

A checkpoint is a folder `step-00000100`: tensors in safetensors files, everything else of the tree in `structure.json`,
and `manifest.json` with sizes, checksums and the format version. It gets its name only once all of it is on disk.
"""

from __future__ import annotations

from foretrain.checkpoints.checkpointer import Checkpointer
from foretrain.checkpoints.folder import Manifest, list_steps, read_checkpoint, read_manifest, step_folder

__all__ = ["Checkpointer", "Manifest", "list_steps", "read_checkpoint", "read_manifest", "step_folder"]
