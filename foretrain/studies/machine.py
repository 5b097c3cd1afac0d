"""What this machine has for trials to share: cores that this process may use, GPUs, and the settings of threads."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cores() -> list[int]:
    """The cores that this process may run on (all, where the system has no word for that)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count() -> int:
    """How many cores' worth of time this process may use: a container may see more cores than it is given time on."""
    quota = _quota()
    count = len(cores())
    return count if quota is None else max(1, min(count, int(quota)))


def gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that give a process that many threads; libraries read them when they are first imported.

    Threads that wait sleep: beside other trials, one that spins takes a core from them.
    """
    return {**dict.fromkeys(_THREADS, str(threads)), "OMP_WAIT_POLICY": "PASSIVE"}


def _quota() -> float | None:
    """Cores' worth of time that the control groups of this process allow; None where there is no limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = CGROUPS if not controllers else CGROUPS / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Any group above may hold the limit; in a container the path may be that of the host, and not be there.
        inside = Path(path.lstrip("/"))
        limits += [_limit(root / group) for group in (inside, *inside.parents)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):
        return None
