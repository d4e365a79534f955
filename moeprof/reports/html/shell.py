"""What every page is: one file that fetches nothing, with its data, styles, plotly.js and scripts.

The page's policy forbids every fetch, so that a file that is passed on stays what it was. Words and
figures are put in as compressed JSON and shown by the page's own script as text; the few sentences
in the HTML itself are escaped by who makes them. plotly.js is the one that plotly's Python package
carries (it has no smaller bundle), read as a file: importing the package would cost more than
making the page.
"""

from __future__ import annotations

import base64
import gzip
import html
import importlib.util
import json
from pathlib import Path
from string import Template
from typing import Any

from moeprof import __version__
from moeprof.errors import EnvironmentMissing

HERE = Path(__file__).parent


def document(
    folder: Path, title: str, heading: str, subject: str, origin: str, data: Any, **parts: str
) -> str:
    """The page of ``folder``: its page.html between header and footer, its page.js after common.js.

    origin: what the footer says after the version. parts: HTML that page.html asks for by name;
    ``style`` comes after the styles of every page. Raises EnvironmentMissing without plotly.
    """
    style = parts.pop("style", "")
    return Template(_read(HERE / "shell.html")).substitute(
        title=html.escape(title),
        heading=html.escape(heading),
        subject=html.escape(subject),
        origin=html.escape(origin),
        version=html.escape(__version__),
        main=Template(_read(folder / "page.html")).substitute(parts).rstrip("\n"),
        style=(_read(HERE / "page.css") + style).rstrip("\n"),
        script=_read(HERE / "common.js") + _read(folder / "page.js"),
        data=packed(data),
        plotly=plotly_script(),
    )


def plotly_script() -> str:
    """plotly.js. Raises EnvironmentMissing where plotly is not installed."""
    package = importlib.util.find_spec("plotly")
    path = Path(package.origin or "").parent / "package_data" / "plotly.min.js" if package else None
    if path is None or not path.is_file():
        raise EnvironmentMissing(
            "plotly, which draws the figures of an HTML report, is not installed",
            do="pip install plotly, or --format md",
        )
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def packed(value: Any) -> str:
    """``value`` as JSON, compressed, in letters that mean nothing in HTML; a fifth of the size."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
