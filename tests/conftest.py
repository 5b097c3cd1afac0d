"""What every test shares: one thread (so that sums are the same on any machine), no network, no cache of the user's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# Before torch is imported, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "120"

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, and no clock: the machine may be busy.
settings.register_profile("foretrain", deadline=None, derandomize=True, database=None)
settings.load_profile("foretrain")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token caches of tests go to a temporary folder that all tests of one worker share."""
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Ctrl-C raises here as in a terminal, also where the tests were started with it ignored (a background job)."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)
