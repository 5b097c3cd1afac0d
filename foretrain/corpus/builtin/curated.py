"""Curated: the corpus that a build makes, made where a recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.corpus.inputs import open_files
from foretrain.corpus.records import Reader
from foretrain.errors import RequestError
from foretrain.files import cache_folder
from foretrain.lock import patient
from foretrain.parts import Facts

if TYPE_CHECKING:
    from foretrain.curation.build_file import CorpusBuild

WAIT_SECONDS = 3600.0
"""How long another process may take that builds the same corpus."""


class Curated(Builtin):
    """What `foretrain corpus build` would make of `build`, made once and kept in the cache.

    So the arms of a study can differ in how their text was curated: thresholds, steps, their order. For everything else
    build a folder and name its path. Paths in it are absolute, or `builtin:`, `data:` or `hub:`.
    """

    kind: Literal["curated"] = "curated"
    facts: ClassVar[Facts] = Facts(
        answers="what would a model learn from text that was curated in another way?", overhead="the build, once"
    )
    build: dict[str, Any]
    """The build: the keys of its file."""

    @field_validator("build")
    @classmethod
    def _a_build(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            _made(value)
        except RequestError as error:
            raise ValueError(str(error)) from error
        return value

    def sources_hash(self) -> str:
        """Hash of all that the build reads."""
        from foretrain.curation.building import build_key, stage_keys

        made = _made(self.build)
        return build_key(made, stage_keys(made))

    def documents(self) -> Iterator[Document]:
        """Every document of the corpus, with its fields and scores."""
        reader = Reader()
        for entry in open_files(str(self._folder())):
            yield from entry.documents(reader)

    def _folder(self) -> Path:
        """The corpus, which is built if it is not there."""
        from foretrain.console import Terminal
        from foretrain.curation.building import build

        made = _made(self.build)
        folder = cache_folder() / "corpora" / self.sources_hash()
        with patient(WAIT_SECONDS):
            build(made, folder, Terminal(quiet=True))
        return folder


def _made(plain: dict[str, Any]) -> CorpusBuild:
    from foretrain.curation.build_file import make_build  # builds read corpora: this one stands above them

    return make_build(plain, source="options.build")
