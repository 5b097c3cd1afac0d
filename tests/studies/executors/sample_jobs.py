"""Jobs for tests of executors; workers import this file by name, so it imports nothing of training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from foretrain.errors import Interrupted
from foretrain.lock import RunLock
from foretrain.signals import Interruption

Payload = dict[str, Any]


def who(payload: Payload) -> Payload:
    """What a worker sees of itself."""
    cores = sorted(os.sched_getaffinity(0))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")
    return {
        "pid": os.getpid(),
        "cores": cores,
        "session": os.getsid(0),
        "folder": os.getcwd(),
        "torch": "torch" in sys.modules,
        **{name: os.environ.get(name) for name in names},
    }


def meet(payload: Payload) -> Payload:
    """Say in a file that it has begun, wait for another file."""
    if payload.get("says"):
        Path(payload["says"]).write_text(str(os.getpid()))
    while payload.get("waits") and not Path(payload["waits"]).exists():
        time.sleep(0.01)
    return {"pid": os.getpid()}


def stubborn(payload: Payload) -> Payload:
    """Never end, whatever it is asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        meet({**payload, "waits": "/nonexistent/file"})


def trial(payload: Payload) -> Payload:
    """What a run does: hold its lock, work until it is asked to stop, write a checkpoint, go on from it."""
    folder = Path(payload["folder"])
    with RunLock(folder), Interruption() as interruption:
        if (folder / "checkpoint").exists():
            return {"resumed": True}
        (folder / "started").write_text(str(os.getpid()))
        while not interruption.requested:
            time.sleep(0.01)
        time.sleep(payload.get("slow", 0.0))
        (folder / "checkpoint").touch()
        raise Interrupted("a checkpoint is written")


def shout(payload: Payload) -> Payload:
    """Print in every way a library may."""
    print('{"result": "printed"}')
    print("to stderr", file=sys.stderr)
    os.write(1, b'{"result": "written"}\n')
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return {"stdin": sys.stdin.read()}


def big(payload: Payload) -> Payload:
    return {"got": len(payload["text"]), "text": "é\n" * (payload["send"] // 2)}


def tensor(payload: Payload) -> Payload:
    return {"figures": [{"loss": 1.0}, {"loss": {1, 2}}]}


def nan(payload: Payload) -> Payload:
    return {"loss": float("nan")}


def numbered(payload: Payload) -> Payload:
    return {"values": {0: 2.1}}


def nothing(payload: Payload) -> None:
    return None


def pair(payload: Payload) -> Payload:
    payload["pair"] = "changed"
    return {"pair": (1, 2)}


def fault(payload: Payload) -> Payload:
    return {"x": payload["missing"]}


def leave(payload: Payload) -> Payload:
    sys.exit("left")


def die(payload: Payload) -> Payload:
    """Die of a signal as often as said; a forked child lives on and holds every pipe."""
    deaths = Path(payload["deaths"])
    count = len(deaths.read_text()) if deaths.exists() else 0
    if count < payload["times"]:
        deaths.write_text("x" * (count + 1))
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
        Path(payload["child"]).write_text(str(child.pid))
        os.kill(os.getpid(), payload.get("signal", signal.SIGKILL))
        time.sleep(60)
    return {"deaths": count, "pid": os.getpid()}
