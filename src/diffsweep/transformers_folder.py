"""The folder of a model as Hugging Face's transformers save it: checked, named by its content, loaded without a hub.

Only safetensors are read, and no code of the folder is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from diffsweep.mistakes import BadValue

# One of the first is there; together they decide which tokens a text becomes.
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
TOKENIZER = (*VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
# What `from_pretrained` is told, so that it asks no hub and runs no code.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def check_folder(name: str, given: str, tokenizer: Path | None = None, other: str = "") -> Path:
    """The folder `given` if it has config, weights that can be read safely, and a tokenizer.

    Args:
        name: Of the key that names it, for messages.
        given: The folder.
        tokenizer: Where its tokenizer lies, if not in it.
        other: What may be given in its place, for messages.

    Raises:
        BadValue: saying what it lacks.
    """
    folder = Path(given)
    if not folder.is_dir():
        rule = f"is no folder: give one that has config.json, weights and a tokenizer{other and f', or {other}'}"
        raise BadValue(name, given, rule)
    if not (folder / "config.json").is_file():
        raise BadValue(name, given, "has no config.json: give a folder as transformers' save_pretrained writes it")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        why = "has its weights as a pickle, which could run any code" if pickled else "has no weights"
        raise BadValue(name, given, f"{why}: they must be safetensors (save_pretrained writes them)")
    if not any(((tokenizer or folder) / one).is_file() for one in VOCABULARY):
        raise BadValue(name, given, "has no tokenizer: save that of the model there too (tokenizer.save_pretrained)")
    return folder


def content_of_files(paths: Iterable[Path]) -> str:
    """The identity of files, 16 hex characters: a hash of their names and contents."""
    sha = hashlib.sha256()
    for path in sorted(paths):
        about = path.stat()
        sha.update(f"{path.name}:{_sha256(path, about.st_size, about.st_mtime_ns)};".encode())
    return sha.hexdigest()[:16]


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        sha = hashlib.sha256()
        while part := stream.read(1 << 22):
            sha.update(part)
    return sha.hexdigest()


def require_transformers(wanted: str) -> ModuleType:
    """The package transformers.

    Args:
        wanted: The option that needs it, for the message.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"{wanted} needs transformers to read texts: pip install 'diffsweep[text]'") from error
    return transformers


def whole_model(kind: Any, folder: Path | str) -> Any:
    """A model in float32, frozen, of a class of transformers, with all the weights that its answers depend on.

    Raises:
        ValueError: for weights that the folder lacks, which transformers would draw at random. Also what
            `from_pretrained` raises.
    """
    import torch

    model, info = kind.from_pretrained(
        str(folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **LOCAL
    )
    # No hidden layer depends on a pooler, which many folders leave out.
    lacking = sorted(name for name in info["missing_keys"] if "pooler" not in name.split("."))
    if lacking:
        raise ValueError(f"its weights lack {', '.join(lacking[:3])}")
    return model.requires_grad_(False).eval()


@contextmanager
def loading(transformers: ModuleType) -> Iterator[None]:
    """Let models be loaded inside of the block without bars and warnings, and without moving random numbers."""
    import torch

    quiet = transformers.utils.logging
    bars, verbosity = quiet.is_progress_bar_enabled(), quiet.get_verbosity()
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    try:
        # Weights are drawn before they are read.
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        quiet.set_verbosity(verbosity)
        if bars:
            quiet.enable_progress_bar()
