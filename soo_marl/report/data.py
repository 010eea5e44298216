"""Tables of words beside the templates: captions, styles, published numbers."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """Return what ``templates/<name>.toml`` holds; do not change it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return tomllib.loads((files("soo_marl.report") / "templates" / f"{name}.toml").read_text(encoding="utf-8"))
