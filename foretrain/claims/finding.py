"""Finding: where claims are, and the claim of a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foretrain
from foretrain.claims.claim import FILE, Claim, glance
from foretrain.errors import CorruptFile, RequestError, unknown_name
from foretrain.files import read_json

RESULT = "result.json"
HERE = Path("recipes") / "claims"


@dataclass(frozen=True)
class Entry:
    """A claim as it is listed.

    Attributes:
        slug: its name: that of its folder.
        folder: where `claim.yaml` is, and `result.json` once there is one.
        claim: what `claim.yaml` says; its study is unchecked.
        result: what `result.json` says, or None.
    """

    slug: str
    folder: Path
    claim: Claim
    result: dict[str, Any] | None

    @property
    def verdict(self) -> str:
        """`reproduced`, `not reproduced`, `undecided` or `not run`."""
        return str(self.result["verdict"]) if self.result else "not run"

    @property
    def stale(self) -> bool:
        """Whether the result is of an earlier version of the claim."""
        if self.result is None:
            return False
        scale = self.result["scale"]
        return scale not in ("small", "full") or self.result["digest"] != self.claim.digest(scale, self.folder)


def claims_folder() -> Path:
    """The folder of claims: `recipes/claims` of the current directory, or else those that foretrain comes with.

    Raises:
        RequestError: there is neither.
    """
    package = Path(foretrain.__file__).resolve().parent
    # Beside the modules where foretrain is installed, beside the package in a checkout.
    for folder in (HERE, package / HERE, package.parent / HERE):
        if folder.is_dir():
            return folder
    raise RequestError(f"There are no claims: no folder {HERE} here, and none came with foretrain.")


def own(folder: Path) -> bool:
    """Whether claims are the user's, so that results may be kept beside them: foretrain's own are not to be written."""
    package = Path(foretrain.__file__).resolve().parent
    inside = folder.resolve()
    return inside != package / HERE and (inside != package.parent / HERE or inside == HERE.resolve())


def slugs(folder: Path) -> list[str]:
    """Names of the claims in a folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(child.name for child in found if (child / FILE).is_file())


def find(slug: str, folder: Path | str | None = None) -> Path:
    """The folder of a claim.

    Raises:
        RequestError: there is no such claim; the message names the nearest one.
    """
    within = _folder(folder)
    if slug not in (known := slugs(within)):
        raise RequestError(unknown_name("claim", slug, known))
    return within / slug


def entries(folder: Path | str | None = None) -> list[Entry]:
    """Every claim in a folder (None: `claims_folder()`), by name.

    Raises:
        RequestError: there is no such folder, or a claim in it has faults.
        CorruptFile: a `result.json` is not one.
    """
    within = _folder(folder)
    return [entry(within / slug) for slug in slugs(within)]


def entry(folder: Path) -> Entry:
    """The claim in a folder with its last result."""
    return Entry(folder.resolve().name, folder, glance(folder), _result(folder / RESULT))


def _folder(folder: Path | str | None) -> Path:
    within = claims_folder() if folder is None else Path(folder)
    if not within.is_dir():
        raise RequestError(f"There is no folder {within} to find claims in.")
    return within


def _result(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not {"verdict", "scale", "digest", "expectations"} <= set(found):
        raise CorruptFile(f"The file {path} is no result of a claim; run the claim again or remove it.")
    return found
