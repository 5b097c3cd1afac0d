"""Every claim in recipes/claims: its file is right, and its study runs at `smoke`, in this process, in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from foretrain.claims.claim import Claim, load_claim, make_claim
from foretrain.claims.finding import entry, slugs
from foretrain.claims.running import run_claim
from tests.claims.tiny_claim import write_claim

CLAIMS = Path(__file__).resolve().parents[2] / "recipes" / "claims"
SLUGS = slugs(CLAIMS)
# What a smoke run may take on a quiet core, and how much more on one that is shared: caches and clock are shared too.
SECONDS, SHARED = 3.0, 2.0


@pytest.fixture(scope="module", autouse=True)
def _imports(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the first study of a process imports is counted for none of them."""
    home = write_claim(tmp_path_factory.mktemp("warm"))
    run_claim(home.name, scale="smoke", folder=home.parent, quiet=True)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_claim_is_right_and_its_smoke_runs(slug: str, tmp_path: Path) -> None:
    claim: Claim = load_claim(CLAIMS / slug)
    assert make_claim(claim.model_dump(mode="json"), CLAIMS / slug) == claim
    began = time.process_time()
    result = run_claim(slug, scale="smoke", folder=CLAIMS, out=tmp_path / "out", quiet=True)
    assert time.process_time() - began < SECONDS * SHARED
    assert not [name for name, arm in result["arms"].items() if arm["failed"]]
    # Each expectation is on a comparison that the study makes, of a figure that its runs have.
    for row in result["expectations"]:
        assert row["words"], f"{row['arm']} against {row['against']}, {row['metric']}"


@pytest.mark.parametrize("slug", SLUGS)
def test_kept_results_are_of_the_claim_as_it_is(slug: str) -> None:
    assert not entry(CLAIMS / slug).stale, f"run it again: foretrain claims run {slug}"
