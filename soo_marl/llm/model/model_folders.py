"""Where a language model lies, and what is never loaded from there: code, pickles, and files of other places.

Every model is loaded from a folder on this machine. What comes from the model hub is fetched into its local cache
first: settings, tokenizer and safetensors, and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from soo_marl.llm.model.embedded import EMBEDDED, embedded_folder, quiet_transformers
from soo_marl.storage.files import RunDirectoryError, quoted, read_text

_SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_WEIGHTS = "model*.safetensors"
"""What is fetched from the hub; some models have further copies of their weights under other names."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""One of these holds a tokenizer's vocabulary."""

_OWN_OUTPUT = "runs"  # folder that commands write to by default
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_HUB_SECONDS = 10.0


def model_folder(name: str, weights: bool = True) -> Path:
    """The folder of a model, all of which may be loaded.

    A name with a separator is one on the hub only if it looks like no path: it has two parts, and the first is neither
    a folder here nor ``runs``.

    What is in the local cache of the hub is used as it is, so that no network is needed; without ``weights``, those on
    the hub are left there.

    Raises:
        ValueError: there is no such model, or it cannot be loaded without code of others or pickles.
        RunDirectoryError: the embedded model cannot be written to the cache.
    """
    if name == EMBEDDED:
        return embedded_folder()
    folder = Path(name).expanduser()
    local = folder.exists() or _is_path(name)
    if not local:
        folder = _from_hub(name, weights)
    elif folder.suffix == ".gguf":
        raise ValueError(_gguf(name))
    elif not folder.is_dir():
        raise ValueError(
            f"there is no folder {quoted(repr(name))}: check the path"
            if not folder.exists()
            else f"{quoted(name)} is no folder: name the one that holds a model's config.json"
        )
    _check(folder, weights or local)
    return folder


def first_line(error: BaseException) -> str:
    """The first line of what another library says, for use in a message."""
    return quoted((str(error).strip() or type(error).__name__).splitlines()[0])


def _is_path(name: str) -> bool:
    parts = Path(name).parts
    return (
        name.startswith((".", "~", os.sep))
        or name.endswith(os.sep)
        or "\\" in name
        or len(parts) > 2
        or Path(name).suffix in (".gguf", ".safetensors", *_PICKLES)
        or (len(parts) == 2 and (parts[0] == _OWN_OUTPUT or Path(parts[0]).is_dir()))
    )


def _from_hub(name: str, weights: bool) -> Path:
    hub = importlib.import_module("huggingface_hub")
    patterns = [*_SETTINGS, _WEIGHTS] if weights else [*_SETTINGS]

    def snapshot(**options: Any) -> Path:
        return Path(hub.snapshot_download(name, allow_patterns=patterns, **options))

    with quiet_transformers():
        try:
            cached = snapshot(local_files_only=True)
            if (cached / "config.json").is_file() and (not weights or not _missing_weights(cached)):
                return cached
        except (OSError, ValueError):
            pass  # Not in the cache, or no name that the hub could know; the hub says which.
        try:
            return snapshot(etag_timeout=_HUB_SECONDS)
        except Exception as error:  # Those of its HTTP library as well, which may be one or the other.
            raise ValueError(
                f"there is no language model {quoted(repr(name))} here or on the model hub, or the hub is out of "
                f"reach: check the name, or name {EMBEDDED!r} or a local folder ({first_line(error)})"
            ) from error


def _check(folder: Path, weights: bool) -> None:
    """Refuse a folder that could not be loaded, or not without a pickle, code of others, or another place's files."""
    try:
        # A pipe would keep whoever opens it waiting for ever.
        if odd := next((file for file in sorted(folder.iterdir()) if not (file.is_file() or file.is_dir())), None):
            raise _unusable(folder, f"{quoted(odd.name)} is no regular file; take it out")
        if (folder / "adapter_config.json").exists():
            raise ValueError(
                f"{folder} holds an adapter, which is no whole model: name the model that it belongs to, or make one "
                "of both with soo-marl llm merge"
            )
        if not (folder / "config.json").exists():
            if any(folder.glob("*.gguf")):
                raise ValueError(_gguf(str(folder)))
            raise _unusable(folder, "config.json is missing")
        _check_config(folder)
        if not any((folder / name).exists() for name in _TOKENIZERS):
            raise _unusable(folder, "it has no tokenizer; copy tokenizer.json from the model that it was made of")
        if weights and (missing := _missing_weights(folder)):
            raise _unusable(folder, missing)
    except OSError as error:
        raise ValueError(f"cannot read {folder}: {error.strerror or error}") from error
    except RunDirectoryError as error:
        raise ValueError(str(error)) from error


def _check_config(folder: Path) -> None:
    for key, value in _settings(folder, "config.json").items():
        # transformers would fetch compute kernels of that name from the hub, and run them.
        if key.endswith("attn_implementation") and "/" in json.dumps(value):
            raise _unusable(folder, f"config.json names code from elsewhere as {quoted(key)}; take that line out")
    for name in ("config.json", "generation_config.json"):
        if not (folder / name).exists():
            continue
        ends = _settings(folder, name).get("eos_token_id")
        for token in ends if isinstance(ends, list) else [ends]:
            # Some settings say -1 for none.
            if token is not None and not (type(token) is int and -1 <= token < 1 << 31):
                raise _unusable(folder, f"{name} names {quoted(repr(token))} as an end token, not a number")


def _settings(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(folder / name))
    except (ValueError, RecursionError) as error:
        raise _unusable(folder, f"{name} is not readable JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise _unusable(folder, f"{name} holds no settings")
    return content


def _missing_weights(folder: Path) -> str:
    """What is missing of a model's weights; nothing where they are whole."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return ""
    if not index.exists():
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        if pickles:
            return f"its weights are a pickle, {quoted(pickles[0])}, which is never loaded; save them as safetensors"
        return "model.safetensors is missing"
    try:
        names = sorted({str(name) for name in json.loads(read_text(index))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{index.name} is damaged"
    outside = next((name for name in names if Path(name).name != name), None)
    if outside is not None:
        return f"{index.name} names a file of another folder, {quoted(outside)}"
    absent = next((name for name in names if not (folder / name).exists()), None)
    return "" if absent is None else f"{quoted(absent)} is missing"


def _unusable(folder: Path, why: str) -> ValueError:
    return ValueError(f"the folder {folder} holds no usable language model ({why})")


def _gguf(name: str) -> str:
    return (
        f"GGUF files are not read, and {quoted(name)} is one or holds one: name a folder of safetensors, which "
        "transformers writes with from_pretrained(FOLDER, gguf_file=FILE).save_pretrained(NEW_FOLDER)"
    )
