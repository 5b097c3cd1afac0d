"""A report as tests read it: its elements, its text, and what its script is given."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """A page's elements, its text, and the data its script reads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"
        (data,) = [body for body in self.scripts if body.startswith("{")]
        self.data: dict[str, Any] = json.loads(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "link", "img", "br"):
            self.open.append(tag)
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in ("th", "td", "dt", "dd", "p", "h1", "h2", "h3") else ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def charts(self) -> list[str]:
        return [str(found["data-chart"]) for _, found in self.elements if "data-chart" in found]


def drawn(path: Path, folder: Path) -> str:
    """The elements of a report after a browser has drawn it without a complaint; its profile is kept in `folder`."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    command = ["chromium", "--headless", "--no-sandbox", *quiet, "--disable-component-update"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=15000"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=100)
    assert 'data-drawn="yes"' in done.stdout, done.stderr
    assert "CONSOLE" not in done.stderr, "the page logged an error"
    return done.stdout
