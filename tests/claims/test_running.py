from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import foretrain
from foretrain.claims import running
from foretrain.claims.claim import load_claim
from foretrain.claims.finding import claims_folder, entry, own
from foretrain.claims.listing import list_claims, listing, outcomes, shown
from foretrain.claims.register import MARK
from foretrain.claims.running import run_claim, show_claim
from foretrain.console import Terminal
from foretrain.errors import CorruptFile, RequestError
from foretrain.studies.executors.inline import Inline
from foretrain.studies.study import Study
from tests.claims.tiny_claim import claim_data, contrast, found, write_claim

ROW = {"slug", "title", "arxiv", "year", "verdict", "effect", "interval", "seeds", "date", "commit"}


class Conduct:
    """Stands in for a study: keeps what it was asked, and tells what it was given."""

    def __init__(self, *contrasts: dict[str, Any]) -> None:
        self.contrasts, self.study, self.out = contrasts, None, Path()

    def __call__(self, study: Study, *, out: Path, restart: bool, quiet: bool) -> dict[str, Any]:
        self.study, self.out = study, out
        out.mkdir(parents=True, exist_ok=True)
        return found(*self.contrasts)


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """recipes/claims of a repository with a docs folder, from within it."""
    folder = tmp_path / "recipes" / "claims"
    (tmp_path / "docs").mkdir()
    write_claim(folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def conduct(monkeypatch: pytest.MonkeyPatch) -> Conduct:
    made = Conduct()
    monkeypatch.setattr(running, "run_study", made)
    return made


def test_a_result_is_kept_and_listed(claims: Path, conduct: Conduct) -> None:
    (row,) = list_claims()
    assert set(row) == {*ROW, "stale", "scale", "what"}
    assert (row["verdict"], row["effect"], row["date"], row["stale"]) == ("not run", None, None, False)
    assert row["what"] == "slow − plain, validation loss"

    result = run_claim("slow", seeds=2, quiet=True)
    assert conduct.study is not None and conduct.study.seeds == [0, 1]
    assert conduct.out == Path("studies/claims-slow")
    assert json.loads((claims / "slow" / "result.json").read_text()) == result
    (row,) = list_claims()
    assert (row["verdict"], row["effect"], row["interval"], row["seeds"]) == ("reproduced", 0.55, [0.4, 0.7], 2)
    assert (row["scale"], row["stale"], row["date"]) == ("small", False, result["date"])
    assert "**reproduced**" in (claims.parent.parent / "docs" / "claims.md").read_text()


def test_smoke_keeps_nothing(claims: Path, conduct: Conduct) -> None:
    before = sorted(claims.parent.parent.rglob("*"))
    result = run_claim("slow", scale="smoke", quiet=True)
    assert (result["scale"], result["verdict"]) == ("smoke", "undecided")
    assert result["expectations"][0]["outcome"] == "met"
    assert sorted(claims.parent.parent.rglob("*")) == before
    assert not conduct.out.exists()
    assert conduct.study is not None and conduct.study.executor.kind == "inline"
    assert list_claims()[0]["verdict"] == "not run"


def test_a_result_of_an_older_claim_is_stale(claims: Path, conduct: Conduct) -> None:
    run_claim("slow", quiet=True)
    write_claim(claims, claim="Other words, the same study.")
    assert not list_claims()[0]["stale"]
    write_claim(claims, study={**claim_data()["study"], "alpha": 0.01})
    assert list_claims()[0]["stale"]
    assert "earlier version" in running.page(claims)


def test_scales_have_directories_of_their_own(claims: Path, conduct: Conduct) -> None:
    write_claim(claims, scales={"smoke": {"seeds": 2}, "full": {"base.budget.steps": 9}})
    run_claim("slow", scale="full", quiet=True, executor=Inline())
    assert conduct.out == Path("studies/claims-slow.full")
    assert conduct.study is not None and conduct.study.base["budget"]["steps"] == 9
    assert conduct.study.executor.kind == "inline"
    assert list_claims()[0]["scale"] == "full"


def test_claims_of_the_package_are_not_written(claims: Path, conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    package = claims.parent.parent / "site" / "foretrain"
    write_claim(package / "recipes" / "claims", "shipped")
    monkeypatch.setattr(foretrain, "__file__", str(package / "__init__.py"))
    elsewhere = claims.parent.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert claims_folder() == package / "recipes" / "claims"
    assert not own(claims_folder()) and own(claims)
    run_claim("shipped", out="mine", quiet=True)
    assert not (package / "recipes" / "claims" / "shipped" / "result.json").exists()
    assert (elsewhere / "mine" / "result.json").is_file()


def test_a_page_written_by_hand_is_left_alone(claims: Path, conduct: Conduct) -> None:
    page = claims.parent.parent / "docs" / "claims.md"
    page.write_text("My own.\n")
    run_claim("slow", quiet=True)
    assert page.read_text() == "My own.\n"
    page.write_text(MARK)
    run_claim("slow", quiet=True)
    assert "## slow" in page.read_text()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"slug": "slwo"}, "no claim 'slwo'; did you mean 'slow'"),
        ({"slug": "slow", "scale": "smal"}, "did you mean 'small'"),
        ({"slug": "slow", "scale": "full"}, "no full scale"),
        ({"slug": "slow", "folder": "nowhere"}, "no folder nowhere"),
    ],
)
def test_requests_that_are_refused(claims: Path, conduct: Conduct, call: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        run_claim(**call, quiet=True)
    assert conduct.study is None


def test_a_damaged_result_is_told_of(claims: Path) -> None:
    for text in ("{", "[]", '{"verdict": "reproduced"}'):
        (claims / "slow" / "result.json").write_text(text)
        with pytest.raises(CorruptFile, match=r"result\.json"):
            entry(claims / "slow")


def test_what_people_see(claims: Path, conduct: Conduct, capsys: pytest.CaptureFixture[str]) -> None:
    def seen(pieces: Any) -> str:
        terminal = Terminal()
        for piece in pieces:
            terminal.show(piece)
        return " ".join(capsys.readouterr().out.split())

    assert "not run" in seen(listing(list_claims()))
    assert "foretrain claims run slow" in seen(shown(show_claim("slow")))
    conduct.contrasts = (contrast("slow", "no difference"),)
    assert "slow: not reproduced" in seen(outcomes(run_claim("slow", quiet=True)))
    assert "not reproduced" in seen(shown(show_claim("slow")))
    assert "no claims" in seen(listing([]))


def test_a_real_study_from_end_to_end(tmp_path: Path) -> None:
    home = write_claim(tmp_path / "claims", scales={"smoke": {"seeds": 2}, "small": {"seeds": 3}})
    result = run_claim("slow", folder=home.parent, out=tmp_path / "out", executor=Inline(), quiet=True)
    assert result["verdict"] == "reproduced"
    values = result["arms"]["slow"]["metrics"]["validation/loss"]["values"]
    assert set(values) == {"0", "1", "2"}
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert study["arms"]["slow"]["metrics"]["validation/loss"]["values"] == values
    assert str(tmp_path) not in (home / "result.json").read_text()
    assert not entry(home).stale
    # Another look trains nothing and says the same.
    again = run_claim("slow", folder=home.parent, out=tmp_path / "out", executor=Inline(), quiet=True)
    assert {**again, "date": result["date"]} == result
    assert load_claim(home) == entry(home).claim
