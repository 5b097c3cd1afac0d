"""The faults that other tests rest on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from foretrain import faults
from foretrain.errors import RequestError


def test_nothing_happens_unless_armed() -> None:
    begin = time.perf_counter()
    for _ in range(100_000):
        faults.reach("mid-step")
    assert time.perf_counter() - begin < 0.5  # about 0.1 us each


@pytest.mark.parametrize("text", ["mid-step", "mid-step:0", "mid-step:x", ":3"])
def test_a_malformed_fault_is_told(text: str) -> None:
    with pytest.raises(RequestError, match="FORETRAIN_FAULT"):
        faults.arm(text)
    faults.arm("")


def test_the_disk_stays_full() -> None:
    faults.arm("full-disk:2")
    try:
        faults.reach("write")
        for _ in range(2):
            with pytest.raises(OSError) as raised:
                faults.reach("write")
            assert raised.value.errno == errno.ENOSPC
        faults.reach("mid-step")
    finally:
        faults.arm("")


def test_the_nth_time_kills() -> None:
    script = """
from foretrain import faults
for number in range(5):
    faults.reach("other")
    print(number, flush=True)
    faults.reach("mid-step")
"""
    environment = {**os.environ, "FORETRAIN_FAULT": "never:1,mid-step:3"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and done.stdout == "0\n1\n2\n"
