"""`pretrained=FOLDER` on a command line chooses the options that ask that model; what would train is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from diffsweep.files import read_json

# What a model that is there already decides by itself, or has behind it: keys and groups by their first word.
_DECIDED = ("backbone", "diffuser")
_TRAINING = ("training", "optimizer", "ema", "validation", "seed")
# The options that ask the model; others may be chosen in the place of the last three.
_OPTIONS = {
    "backbone": "imported",
    "diffuser": "imported",
    "condition": "imported",
    "schedule": "imported",
    "guidance/output": "imported",
}


def with_imported_options(words: Sequence[str]) -> list[str]:
    """The words of a command line with the options that a word `pretrained=FOLDER` calls for, if there is one.

    Raises:
        ValueError: for a word that such a model has no use for.
    """
    keys = {word: word.lstrip("+~").partition("=")[0].partition("@")[0] for word in words if "=" in word}
    named = [word for word, key in keys.items() if key == "pretrained"]
    if not named or all(re.fullmatch(r"pretrained=(null|)", word) for word in named):
        return list(words)
    for word, key in keys.items():
        first = re.split(r"[./]", key)[0]
        if word in (f"{group}=imported" for group in _OPTIONS):
            continue
        if first in _DECIDED:
            raise ValueError(f"{word}: {named[0]} has a {first} of its own, so leave this out")
        if first in _TRAINING:
            raise ValueError(f"{word}: {named[0]} is not trained, so leave this out")
    chosen = set(keys.values())
    options = {**_OPTIONS, **_options_of_folder(Path(named[-1].partition("=")[2]))}
    return [*words, *(f"{group}={option}" for group, option in options.items() if group not in chosen)]


def _options_of_folder(folder: Path) -> dict[str, str]:
    """Further options that a whole pipeline of diffusers calls for, by the folders of its parts."""
    found = {"condition": "imported_text"} if (folder / "text_encoder" / "config.json").is_file() else {}
    with suppress(ValueError, OSError):
        # Whoever reads the folder says what is wrong with it.
        config = read_json(folder / "transformer" / "config.json") or {}
        found |= {"guidance": "distilled"} if config.get("guidance_embeds") is True else {}
    if (folder / "vae" / "config.json").is_file():
        found |= {"autoencoder": "pretrained", "autoencoder.network.folder": str(folder)}
    return found
