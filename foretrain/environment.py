"""Environment: what a run's numbers and speed may depend on besides its recipe; and the memory this process uses.

No names of hosts, users or folders are told: `environment.json` may be published beside a result.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import foretrain

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pyarrow", "pydantic")
_VARIABLES = re.compile(
    r"(OMP|KMP|GOMP|MKL|DNNL|ONEDNN|OPENBLAS|CUBLAS|CUDNN|NCCL|NVIDIA_TF32|TORCH_ALLOW_TF32|PYTORCH|PYTHONHASHSEED|CUDA_VISIBLE_DEVICES|CUDA_LAUNCH)\w*"
)
"""Variables that change thread counts, kernels or the order of sums."""
_FLAGS = re.compile(r"(avx2|avx512\w*|avx_vnni|avx10\w*|amx_\w+|fma|f16c|sve2?|asimd\w*|i8mm|bf16)")
"""CPU flags by which torch and its libraries choose kernels."""
_GIT_SECONDS = 2.0


def describe() -> dict[str, Any]:
    """Versions, commits, hardware, threads and settings as plain data for `environment.json`; in about 10 ms.

    What is fixed once a process has imported its libraries is looked up once.
    """
    # Git starts first and works while the rest is gathered.
    here = _ask_git(Path.cwd())
    cpu = _cpu()
    found = {
        "foretrain": foretrain.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "libraries": _libraries(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu,
        "threads": {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()},
        "memory": _total_memory(),
        "gpus": _gpus(),
        "numerics": {
            "matmul_precision": torch.get_float32_matmul_precision(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        },
        "variables": {name: os.environ[name] for name in sorted(os.environ) if _VARIABLES.fullmatch(name)},
    }
    return {**found, "commit": _own_commit(), "working_directory": _git_answer(here)}


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = _status()
    if "VmHWM" in status:
        return status["VmHWM"]
    # Kilobytes on Linux, bytes on macOS. Second choice: on Linux a child begins with its parent's peak.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_memory() -> int:
    """Resident memory of this process now, in bytes; its peak where the system doesn't tell."""
    return _status().get("VmRSS") or peak_memory()


def _status() -> dict[str, int]:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return {}
    return {
        name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB", text, re.MULTILINE)
    }


@cache
def _own_commit() -> dict[str, Any] | None:
    """Commit of the code that this process runs, which stays that of its start."""
    return _git_answer(_ask_git(Path(foretrain.__file__).parent))


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _libraries() -> dict[str, str | None]:
    text = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+)", text)
    onednn = re.search(r"MKL-DNN (v\S+)", text)
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return {
        "mkl": mkl and mkl[1],
        "onednn": onednn and onednn[1],
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    first = text.split("\n\n", 1)[0]
    model = re.search(r"^model name\s*:\s*(.+)$", first, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", first, re.MULTILINE)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": model[1].strip() if model else platform.processor() or None,
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": sorted(flag for flag in flags[1].split() if _FLAGS.fullmatch(flag)) if flags else [],
    }


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    try:
        driver = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        driver = None
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [{"name": card.name, "memory": card.total_memory, "driver": driver and driver[1]} for card in cards]


def _ask_git(folder: Path) -> subprocess.Popen[str] | None:
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(folder),
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
        "--",
        ".",
    ]
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None


def _git_answer(asked: subprocess.Popen[str] | None) -> dict[str, Any] | None:
    """Commit, and whether tracked files in the folder differ from it; None outside a repository or if git is slow."""
    if asked is None:
        return None
    try:
        text, _ = asked.communicate(timeout=_GIT_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        return None
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,})$", text, re.MULTILINE)
    if asked.returncode != 0 or commit is None:
        return None
    changed = any(line and not line.startswith("#") for line in text.splitlines())
    return {"commit": commit[1], "changed": changed}
