"""Pages that need nothing but themselves: readable offline, on a phone, and on paper.

They are made of the templates in ``soo_marl/report/templates``. Their Content Security Policy lets nothing be fetched,
and nothing run but the page's own script, which is named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from soo_marl.report.data import in_words
from soo_marl.statistics import Interval
from soo_marl.storage.files import RunDirectoryError, read_bytes, write_text
from soo_marl.storage.records import FigureRecord, Model, Record, read_list, read_one
from soo_marl.storage.study_directory import StudyDirectory, StudyManifest

MEDIA_TYPES = {".png": "image/png", ".gif": "image/gif"}
_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".gif": b"GIF8"}
_ANEW = "draw it anew with: soo-marl report"

Content = TypeVar("Content")


class EmbeddedFigure(NamedTuple):
    """A figure inside the page: its data URI, and what it shows."""

    source: str
    caption: str


@dataclass(frozen=True)
class Reader:
    """Reads a study's directory for a page; what cannot be read is added to what is missing, and left empty."""

    directory: Path
    """The study's directory; absolute, since "." could not be told apart from the text of a message."""
    missing: list[str]
    """What could not be read, one sentence each."""

    def optional(self, read: Callable[[], Content]) -> Content | None:
        """Return what ``read`` returns, or None where a file is in the way."""
        try:
            return read()
        except RunDirectoryError as error:
            self.missing.append(str(error))
            return None

    def manifest(self) -> StudyManifest | None:
        """What ``study.json`` holds."""
        return self.optional(lambda: StudyDirectory.read(self.directory).manifest)

    def records(self, name: str, model: type[Model]) -> tuple[Model, ...]:
        """The list in ``results/<name>.json``."""
        return tuple(self.optional(lambda: read_list(self.directory / "results" / f"{name}.json", model)) or ())

    def record(self, name: str, model: type[Model]) -> Model | None:
        """What ``results/<name>.json`` holds."""
        return self.optional(lambda: read_one(self.directory / "results" / f"{name}.json", model))

    def figures(self) -> tuple[EmbeddedFigure, ...]:
        """The figures that ``results/figures.json`` lists."""
        embedded = []
        for figure in self.records("figures", FigureRecord):
            path = self.directory / "figures" / figure.file
            content = self.optional(partial(read_bytes, path, _ANEW))
            # People pass pages on: nothing but a picture may get in.
            if content is not None and not content.startswith(_SIGNATURES[path.suffix]):
                self.missing.append(f"{path} is no picture; {_ANEW}")
            elif content is not None:
                data = base64.b64encode(content).decode("ascii")
                embedded.append(EmbeddedFigure(f"data:{MEDIA_TYPES[path.suffix]};base64,{data}", figure.caption))
        return tuple(embedded)

    def sentences(self, name: str = "") -> tuple[str, ...]:
        """What is missing, with paths as seen from the study's directory, or from where the study's name is one."""
        inside, itself = (f"{name}/", name) if name else ("", "this folder")
        own = str(self.directory)
        return tuple(text.replace(f"{own}/", inside).replace(own, itself) for text in self.missing)


def write_page(
    directory: Path, template: str, styles: Sequence[str], script: str = "", data: object = None, **content: Any
) -> Path:
    """Write ``report.html`` into a directory, and return its path.

    Template, style sheets and script (empty for none) stand in ``templates/``; the script reads the data, the template
    shows the content.

    Raises:
        RunDirectoryError: the page cannot be written.
    """
    environment = new_environment()
    style_text = "".join(_source(environment, name) for name in styles)
    script_text = _source(environment, script) if script else ""
    # Globals are seen by parts that templates import, too.
    environment.globals |= {
        "policy": _policy(style_text, script_text),
        "style": style_text,
        "script": script_text,
        "data": data,
        "figure_number": count(1).__next__,
        **content,
    }
    page = environment.get_template(template).render()
    path = directory / "report.html"
    write_text(path, page)
    return path


def new_environment() -> Environment:
    """Return an environment for the templates in ``soo_marl/report/templates``: everything is escaped."""
    environment = Environment(
        loader=PackageLoader("soo_marl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "number": format_number,
        "interval": format_interval,
        "range": format_range,
        "words": in_words,
        "slug": slug,
        "flattened": flattened,
    }
    return environment


def require_folder(study_directory: Path) -> Path:
    """Return the path of a study's directory.

    Raises:
        RunDirectoryError: there is no such directory.
    """
    if not Path(study_directory).is_dir():
        raise RunDirectoryError(f"{study_directory} is not a folder, so there is no study to report on")
    return Path(study_directory)


def format_number(value: float | None) -> str:
    """Return a number with three significant digits, and a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def format_interval(item: Interval | Record) -> str:
    """Return ``estimate [low, high]``, or the estimate alone where there is no interval."""
    return f"{format_number(item.estimate)} {format_range(item)}".rstrip()


def format_range(item: Interval | Record) -> str:
    """Return ``[low, high]``, or nothing where there is no interval."""
    if item.low is None or item.high is None:
        return ""
    return f"[{format_number(item.low)}, {format_number(item.high)}]"


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds as text, three and more in a row as a range, such as ``0–9, 20``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(texts) or "none"


def flattened(configuration: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the configuration as rows of dotted field and value."""
    rows: list[tuple[str, str]] = []
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", "none" if value is None else str(value)))
    return rows


def slug(text: str) -> str:
    """Return a text as part of an identifier: letters and digits, and a hyphen for whatever else."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in text.lower())


def _source(environment: Environment, name: str) -> str:
    """The text of a style or script beside the templates, as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _policy(style: str, script: str) -> str:
    """Pictures inside the page, its own style, and its own script if it has one."""
    rules = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    if script:
        rules.append(f"script-src {_hash(script)}")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
