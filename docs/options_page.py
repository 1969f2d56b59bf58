"""Writes docs/options.md from the options in conf/: `python docs/options_page.py` after an option has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffsweep.report.key_text import meaning, sentence
from diffsweep.sweep.plan import option_files
from diffsweep.sweep.plan.key_reference import KeyReference, Setting

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "options.md"

_INTRODUCTION = """\
# Options

Every option is one YAML file in [conf/](../conf): its first line names the paper and says when to use it. This page is
made of these files and of the docstrings of the classes; the same is told by

    diffsweep options                           # all groups
    diffsweep options sampler                   # what each sampler is, and the defaults of its keys
    diffsweep options dataset                   # data sets: what they are good for, licence, where to get them
    diffsweep options sampler=heun              # its file, whose comments explain the keys
    diffsweep options dataset --config-dir mine # with options of your own
    diffsweep explain sampler.spacing.rho       # a key: meaning, range, default, who reads it, which options set it

"""
_BETWEEN = ("", "A choice has parts, which are groups too, and there are more:", "")
_EXAMPLES = """
More is said elsewhere of [samplers](samplers.md), [networks](networks.md), [data](data.md),
[videos and sounds](video_and_audio.md), [models that are there already](checkpoints.md), [evaluation](evaluation.md)
and [speed](speed.md).

```sh
python train.py diffuser=flow schedule=rectified sampler=adams_bashforth_v
python train.py dataset=mixture backbone=mlp sampler=ddpm sampler.nfe=200
python train.py -m sampler=ddim sampler.noise.eta=0,0.5,1
python train.py diffuser=consistency schedule=ve sampler=consistency
python train.py diffuser=iddpm sampler=ddpm sampler.nfe=100
python train.py -m experiment=toy dataset=moons,spirals,swissroll,checkerboard
```

A sampler of two calls a step, such as `heun`, takes half as many steps for the same `sampler.nfe`.
"""
_CHOICES = ("diffuser", "sampler", "schedule", "backbone", "dataset")


def page(root: Path = ROOT) -> str:
    """The whole page, of the options of a repository."""
    reference = KeyReference([root / "conf"])
    groups = [group for group in reference.groups if group != "sweeps" and not group.startswith("hydra/")]
    lines = [*_table([group for group in groups if group in _CHOICES], reference), *_BETWEEN]
    lines += _table([group for group in groups if group not in _CHOICES], reference)
    lines += _EXAMPLES.splitlines()
    every = [one for found in reference.settings.values() for one in found]
    lines += ["", "## `config.yaml`: what every run has", ""]
    lines += _keys([one for one in every if one.option == "config.yaml"])
    for group in reference.groups:
        lines += ["", f"## `{group}`: {option_files.DECIDES[group]}", ""]
        options = option_files.of_group(group, reference.groups)
        lines += [f"- `{option.name}`: {_text(option.sentence)}" for option in options]
        settings = [one for option in options for one in reference.option_settings(group, option.name)]
        keys = [] if group == "sweeps" else _keys(settings)
        if keys:
            lines += ["", "Keys:", "", *keys]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _table(groups: Sequence[str], reference: KeyReference) -> Iterator[str]:
    yield from ("| group | what it decides | options |", "|---|---|---|")
    for group in groups:
        names = ", ".join(f"`{name}`" for name in sorted(reference.groups[group]))
        yield f"| `{group}` | {option_files.DECIDES[group]} | {names} |"


def _keys(settings: Sequence[Setting]) -> list[str]:
    """A line for each key, and for each class that reads it, with the values that options give it."""
    found: dict[tuple[str, str], list[Setting]] = {}
    for one in settings:
        if not one.is_place:
            found.setdefault((one.key, one.reader), []).append(one)
    lines = []
    for (key, reader), same in sorted(found.items()):
        values: dict[str, list[str]] = {}
        for one in same:
            values.setdefault(one.value, []).append(one.option.rpartition("=")[2])
        many = len(values) > 1
        shown = [f"`{value}`" + (f" ({', '.join(names)})" if many else "") for value, names in values.items()]
        by = f" *{reader.rpartition('.')[2]}*." if reader else ""
        said = _text(meaning(same)).rstrip(".")
        lines.append(f"- `{key}`: {sentence(said)}.{by} {', '.join(shown)}")
    return lines


def _text(said: str) -> str:
    """Words that Markdown shows as they are, outside of code."""
    parts = re.split(r"(`[^`]*`)", said)
    return "".join(part if part.startswith("`") else re.sub(r"([*_\[\]<])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
