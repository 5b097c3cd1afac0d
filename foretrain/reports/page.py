"""Page: one HTML file that opens offline, with its style, its curves and what draws them inside it."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import foretrain
from foretrain import units
from foretrain.hashing import hash_bytes
from foretrain.reports.plots import Chart
from foretrain.reports.scatter import Scatter


def render(template: str, **content: Any) -> str:
    """A page from a template that extends `base.html`. All text is escaped.

    Args:
        template: its name in `report/templates`.
        content: what the template asks for; `charts` (by name) and `axes` (lists `steps` and any of `tokens`, `flops`,
            `seconds`, of equal length) are handed to the page's script, and so are `tables`, of the same form, by the
            names that lines give for their own.
    """
    charts: dict[str, Chart | Scatter] = content.get("charts", {})
    data = {
        "axes": content.get("axes", {}),
        "tables": content.get("tables", {}),
        "charts": {name: chart.figure() for name, chart in charts.items()},
    }
    script = _text("page.js")
    plotly = _plotly() if charts else ""
    return (
        _environment()
        .get_template(template)
        .render(
            **content,
            style=Markup(_text("style.css")),
            script=Markup(script),
            plotly=Markup(plotly),
            page_data=embedded_json(data),
            nonce=hash_bytes(script.encode(), 12),
            version=foretrain.__version__,
        )
    )


def embedded_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: no text in it can end the element or start a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("foretrain.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "flops", "duration", "size", "measured", "share"):
        environment.filters[name] = getattr(units, name)
    return environment


def _text(name: str) -> str:
    return (files("foretrain.reports") / "templates" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """plotly.js, compressed to a third: every browser since 2023 unpacks it by itself."""
    from plotly.offline import get_plotlyjs

    # A fixed time stamp: the same run gives the same bytes.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
