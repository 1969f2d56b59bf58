"""What the options of a project are, read from their YAML files as text: nothing is composed or imported.

The first comment of an option's file says what it is. Comment lines behind it that begin with a word and a colon, as
`# licence: ...`, say more of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsweep.mistakes import did_you_mean

# What each group decides, in the order in which they are shown; a group of the user's own comes after these.
DECIDES: Mapping[str, str] = {
    "diffuser": "how a model is trained: target, times, weights, loss",
    "sampler": "how it is integrated back, at a cost of `sampler.nfe` network calls",
    "schedule": "alpha and sigma as functions of time",
    "condition": "what the model is told beside the noise level; a list for several",
    "autoencoder": "the space that a model works in: the data, or latents of an autoencoder",
    "backbone": "the network",
    "dataset": "the data",
    "sampler/spacing": "which noise levels are visited",
    "sampler/noise": "where fresh noise comes in",
    "diffuser/target": "what the network predicts",
    "diffuser/times": "which levels it is trained on, how often",
    "diffuser/weight": "how much each level counts",
    "diffuser/loss": "the loss itself",
    "guidance": "where the model is made to aim",
    "guidance/output": "what becomes of its x0: clipped or not",
    "optimizer": "how the weights follow the gradient",
    "training/decay": "how the learning rate falls",
    "evaluation": "how many samples are drawn and scored",
    "extractor": "the features that samples are compared in",
    "metric": "what is measured in them",
    "validation": "evaluations while a training goes on",
    "trainer": "the device, its precision, how often is saved",
    "logger": "who is told of a training beside our own files",
    "experiment": "recipes: several choices at once",
    "sweeps": "studies: a question, and the sweep that answers it",
    "resources": "what SLURM jobs ask for",
    "hydra/launcher": "where the jobs of a sweep run",
    "hydra/sweeper": "which combinations a sweep has",
    "hydra/sweeper/sampler": "how a search chooses its next trial",
    "hydra/sweeper/pruner": "which trials of a search end early",
}
# Parts of Hydra, and of experiments, that nobody chooses.
_INTERNAL = ("hydra/help", "experiment/")


@dataclass(frozen=True)
class Option:
    """One option of a group.

    Attributes:
        group: as sampler/spacing.
        name: as karras.
        file: its YAML.
        package: dotted place in the config that its keys are below.
        sentence: what it is.
        notes: what more is said of it, by word, as licence.
        settings: its keys as they are typed behind `python train.py`, with their defaults.
    """

    group: str
    name: str
    file: Path
    package: str
    sentence: str
    notes: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[str] = ()


def groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """The files of all options, by group and name, of folders of which the first that has one counts.

    Args:
        folders: conf and --config-dir, in the order in which Hydra searches them; beside conf the folder `sweeps`.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        places = [(path, path.parent.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*.yaml"))]
        places += [(path, "sweeps") for path in sorted((folder.parent / "sweeps").glob("*.yaml"))]
        for path, group in places:
            if group != "." and not group.startswith(_INTERNAL):
                found.setdefault(group, {}).setdefault(path.stem, path)
    known = [*DECIDES, *sorted(found.keys() - DECIDES.keys())]
    return {group: found[group] for group in known if group in found}


def chosen(folders: Iterable[Path]) -> dict[str, str]:
    """The option that each group has by default, of the first folder that has a config.yaml."""
    config = next((folder / "config.yaml" for folder in folders if (folder / "config.yaml").is_file()), None)
    found: dict[str, str] = {}
    for entry in _content(config).get("defaults") or () if config is not None else ():
        for key, value in entry.items() if isinstance(entry, dict) else ():
            group = str(key).removeprefix("override ")
            found[group.lstrip("/")] = (
                "that of the dataset" if "${" in str(value) else "none" if value is None else value
            )
    return found


def of_group(group: str, known: Mapping[str, Mapping[str, Path]]) -> list[Option]:
    """The options of a group, by name. Raises ValueError for a group that is not there, with the nearest."""
    if group not in known:
        shown = ", ".join(known)
        raise ValueError(f"there is no group {group}{did_you_mean(group, known) or f'; there are {shown}'}")
    return [option(group, file) for _, file in sorted(known[group].items())]


def option(group: str, file: Path) -> Option:
    """What a file says of its option. Raises ValueError for one that is no YAML."""
    content = _content(file)
    package, sentence, notes = _header(file.read_text(encoding="utf-8"), group)
    based_on = [entry for entry in content.get("defaults") or () if isinstance(entry, str) and entry != "_self_"]
    if based_on:
        notes["all else as"] = ", ".join(f"{group}={entry}" for entry in based_on)
    settings = [f"{place}={choice}" for place, choice in _choices(content, group)]
    settings += [f"{key}={_shown(value)}" for key, value in _leaves(content, package) if key != "defaults"]
    return Option(group, file.stem, file, package, sentence, notes, settings)


def _header(text: str, group: str) -> tuple[str, str, dict[str, str]]:
    """Where the content goes, the sentence, and the notes."""
    package, said, notes = group.replace("/", "."), [], {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.removeprefix("#").strip()
        if words.startswith("@package "):
            package = words.removeprefix("@package ").replace("_global_", "")
        elif note := re.fullmatch(r"([A-Za-z][a-z ]{2,11}): +(.*)", words):
            notes[note[1]] = note[2]
        elif notes:
            last = next(reversed(notes))
            notes[last] = f"{notes[last]} {words}"
        else:
            said.append(words)
    return package, " ".join(said) or next(iter(notes.values()), ""), notes


def _content(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _choices(content: Mapping[str, Any], group: str) -> Iterator[tuple[str, str]]:
    for entry in content.get("defaults") or ():
        for key, value in entry.items() if isinstance(entry, dict) else ():
            part = str(key).removeprefix("override ").partition("@")[0]
            yield part.lstrip("/") if part.startswith("/") else f"{group}/{part}", _shown(value)


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        full = f"{path}.{key}" if path else str(key)
        if str(key).startswith("_") or (key == "defaults" and isinstance(value, list)):
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, full)
        else:
            yield full, value


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
