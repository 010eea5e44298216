"""Pages that need nothing but themselves: templates, a policy that lets nothing be fetched, and embedded pictures."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from soo_marl.storage.files import RunDirectoryError, read_bytes
from soo_marl.storage.records import FigureRecord

Content = TypeVar("Content")

MEDIA_TYPES = {".png": "image/png", ".gif": "image/gif"}
_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".gif": b"GIF8"}
_ANEW = "draw it anew with: soo-marl report"


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure inside the page."""

    source: str
    """Data URI."""
    caption: str
    """What it shows."""


def new_environment() -> Environment:
    """Return an environment for the templates in ``soo_marl/report/templates``: everything is escaped."""
    return Environment(
        loader=PackageLoader("soo_marl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(environment: Environment, name: str) -> str:
    """Return the text of a style or script beside the templates, as it is.

    Raises:
        jinja2.TemplateNotFound: there is no such file.
    """
    assert environment.loader is not None
    content, _, _ = environment.loader.get_source(environment, name)
    return content


def policy(style: str, script: str) -> str:
    """Return the Content Security Policy: pictures inside the page, its own style, and its own script if it has one."""
    rules = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    if script:
        rules.append(f"script-src {_hash(script)}")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def embedded_figures(figures: Iterable[FigureRecord], folder: Path, missing: list[str]) -> tuple[EmbeddedFigure, ...]:
    """Return figures as data URIs; those that cannot be read are added to what is missing."""
    embedded = []
    for figure in figures:
        path = folder / figure.file
        content = optional(partial(read_bytes, path, _ANEW), missing)
        if content is None:
            continue
        # People pass pages on: nothing but a picture may get in.
        if not content.startswith(_SIGNATURES[path.suffix]):
            missing.append(f"{path} is no picture; {_ANEW}")
            continue
        data = base64.b64encode(content).decode("ascii")
        embedded.append(EmbeddedFigure(f"data:{MEDIA_TYPES[path.suffix]};base64,{data}", figure.caption))
    return tuple(embedded)


def optional(read: Callable[[], Content], missing: list[str]) -> Content | None:
    """Return what ``read`` returns, or None where a file is in the way, which is added to what is missing."""
    try:
        return read()
    except RunDirectoryError as error:
        missing.append(str(error))
        return None


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
