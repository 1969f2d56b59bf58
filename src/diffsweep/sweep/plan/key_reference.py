"""What the keys of a config are: who reads each, what its docstring or its YAML comment says, which options set it.

Read from the files of the options and the source of the classes as text: nothing is composed, and no class imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.mistakes import did_you_mean
from diffsweep.sweep.plan import option_files
from diffsweep.sweep.plan.constructor import Parameter, documentation

if TYPE_CHECKING:
    import yaml

# Dotted place without `_target_` -> the class that a run makes of it, where its keys are documented.
_SETTINGS = "diffsweep.settings."
READERS: Mapping[str, str] = {
    "training": f"{_SETTINGS}TrainingSettings",
    "autoencoder.training": f"{_SETTINGS}TrainingSettings",
    "weights": "diffsweep.scoring.weights.WeightsChoice",
    "trainer": f"{_SETTINGS}TrainerSettings",
    "trainer.loading": f"{_SETTINGS}LoadingSettings",
    "evaluation": f"{_SETTINGS}EvaluationSettings",
    **{f"resources.{job}": "diffsweep.sweep.slurm.resources.Resources" for job in ("fit", "cells", "finish")},
}
# What is written there has names of the user's own: overridden keys, options of sbatch.
_FREE = ("hydra.sweeper.params",)
_HIDDEN = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "defaults")
_MAIN = "config"


@dataclass(frozen=True)
class Setting:
    """A key as one file of options has it.

    Attributes:
        key: dotted.
        option: the group and name of the file, as sampler=heun; config.yaml for the main one.
        value: as it is typed; empty for a place with keys below it.
        comment: what the YAML says beside it, or in the line above.
        reader: dotted path of the class or function that gets it; of a place, that is made of it; empty if none.
    """

    key: str
    option: str
    value: str
    comment: str
    reader: str

    @property
    def is_place(self) -> bool:
        """Whether it has keys below it."""
        return not self.value

    @property
    def parameter(self) -> Parameter | None:
        """What the reader's source says of it."""
        return documentation(self.reader)[1].get(self.key.rpartition(".")[2]) if self.reader else None

    @property
    def meaning(self) -> str:
        """What it is: the docstring's entry of its reader, and the comment if that says more; empty if none does."""
        if self.is_place:
            return (documentation(self.reader)[0] if self.reader else "") or self.comment
        said = self.parameter.meaning if self.parameter is not None else ""
        return said or self.comment


@dataclass(frozen=True)
class Key:
    """All that is known of a key.

    Attributes:
        name: dotted.
        settings: one for each file that has it.
        default: that of a run of which nothing is said, if such a run has the key.
        below: the keys below it, dotted.
        group: the group of options that is chosen there, as sampler/spacing; empty if none is.
        options: the names of the options of that group.
        chosen: that of a run of which nothing is said; empty if it has none.
    """

    name: str
    settings: Sequence[Setting]
    default: Setting | None
    below: Sequence[str]
    group: str
    options: Sequence[str]
    chosen: str


class KeyReference:
    """All keys of the options in `folders`, conf and those that add to it, in the order in which Hydra searches them.

    Raises:
        ValueError: for a file that is no YAML.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.groups = option_files.groups(folders)
        self._chosen = option_files.chosen(folders)
        self._files: dict[str, _OptionFile] = {}
        self.settings: dict[str, list[Setting]] = {}
        main = next((folder / "config.yaml" for folder in folders if (folder / "config.yaml").is_file()), None)
        files = [(_MAIN, "", main)] if main is not None else []
        files += [(f"{group}={name}", group, file) for group, one in self.groups.items() for name, file in one.items()]
        for name, group, file in files:
            self._files[name] = _OptionFile(group, file)
        # An experiment sets keys of parts that it does not choose.
        self._default_targets = {
            place: target for name in self._default_files() for place, target in self._files[name].targets.items()
        }
        for name, file in self._files.items():
            for setting in self._of(name, file):
                self.settings.setdefault(setting.key, []).append(setting)
        self._default = {
            setting.key: setting for name in self._default_files() for setting in self._of(name, self._files[name])
        }

    def find(self, name: str) -> Key:
        """What is known of a key, a place with keys below it, or a group. Raises ValueError with the nearest."""
        name = name.partition("=")[0].lstrip("+~").partition("@")[0]
        group = name if name in self.groups else name.replace(".", "/")
        dotted = name.replace("/", ".")
        if dotted not in self.settings and group not in self.groups:
            known = [*self.settings, *(one for one in self.groups if one.replace("/", ".") not in self.settings)]
            raise ValueError(
                f"there is no key {name}{did_you_mean(name, known) or '; diffsweep options lists all choices'}"
            )
        below = [key for key in self.settings if key.startswith(f"{dotted}.")]
        options = self.groups.get(group, {})
        return Key(
            dotted,
            self.settings.get(dotted, ()),
            self._default.get(dotted),
            below,
            group if group in self.groups else "",
            list(options),
            next((one.partition("=")[2] for one in self._default_files() if one.startswith(f"{group}=")), ""),
        )

    def option_settings(self, group: str, name: str) -> list[Setting]:
        """The keys that an option's own file sets."""
        return list(self._of(f"{group}={name}", self._files[f"{group}={name}"]))

    def _of(self, name: str, file: _OptionFile) -> Iterator[Setting]:
        for key, value, comment in file.keys:
            place = key if not value else key.rpartition(".")[0]
            reader = self._reader(name, place) or READERS.get(place) or self._default_targets.get(place, "")
            yield Setting(key, name if name != _MAIN else "config.yaml", value, comment, reader)

    def _reader(self, name: str, place: str) -> str:
        """What is made of a place: the `_target_` there, in an option's file or in those that it builds on."""
        if place in self._files[name].targets:
            return self._files[name].targets[place]
        for below in self._defaults(name):
            if below in self._files and (found := self._reader(below, place)):
                return found
        return ""

    def _defaults(self, name: str) -> Iterator[str]:
        if name == _MAIN:
            yield from (f"{group}={choice}" for group, choice in self._chosen.items())
            dataset = self._chosen.get("dataset", "")
            known = self.groups.get("extractor", {})
            yield f"extractor={dataset if dataset in known else 'auto'}"
            return
        yield from self._files[name].defaults

    def _default_files(self, name: str = _MAIN) -> Iterator[str]:
        """The files of a run of which nothing is said; whichever comes later has the last word."""
        if name not in self._files:
            return
        first = self._files[name].is_first
        if first:
            yield name
        for below in self._defaults(name):
            yield from self._default_files(below)
        if not first:
            yield name


class _OptionFile:
    """One YAML file, parsed with its comments.

    Attributes:
        keys: dotted key, value as it is typed (empty for a place), comment.
        targets: dotted place -> its `_target_`.
        defaults: the options that it builds on, as sampler/spacing=karras.
        is_first: whether these have the last word.
    """

    def __init__(self, group: str, file: Path) -> None:
        import yaml

        text = file.read_text(encoding="utf-8")
        option = option_files.option(group, file) if group else None
        self._lines = text.splitlines()
        self.keys: list[tuple[str, str, str]] = []
        self.targets: dict[str, str] = {}
        self.defaults: list[str] = []
        self.is_first = False
        try:
            node = yaml.compose(text, Loader=_loader())
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
        self._header = next((i for i, line in enumerate(self._lines) if not line.startswith("#")), len(self._lines))
        if isinstance(node, yaml.MappingNode):
            if option is not None and option.package and any(key.value == "_target_" for key, _ in node.value):
                self.keys.append((option.package, "", option.sentence))
            self._read(node, option.package if option is not None else "")
            if group:
                self._read_defaults(node, group)

    def _read(self, node: yaml.MappingNode, path: str) -> None:
        import yaml

        for key_node, value in node.value:
            key = str(key_node.value)
            full = f"{path}.{key}" if path else key
            if key == "_target_" and value.value != "???":
                self.targets[path] = str(value.value)
            if key in _HIDDEN or (key == "hydra" and not path and isinstance(value, yaml.ScalarNode)):
                continue
            place = isinstance(value, yaml.MappingNode) and bool(value.value) and full not in _FREE
            if place:
                self.keys.append((full, "", self._comment(key_node, None)))
                self._read(value, full)
            else:
                flow = getattr(value, "flow_style", True)
                self.keys.append((full, _typed(value), self._comment(key_node, value if flow else None)))

    def _comment(self, key: yaml.Node, value: yaml.Node | None) -> str:
        """The comment behind a value, else the lines of comment above its key."""
        end = (value or key).end_mark
        behind = self._lines[end.line][end.column :] if end.line < len(self._lines) else ""
        if found := re.fullmatch(r"\s*:?\s*#\s*(.*)", behind):
            return found[1].strip()
        above: list[str] = []
        line = key.start_mark.line - 1
        indent = " " * key.start_mark.column
        while line >= self._header and self._lines[line].startswith(f"{indent}#"):
            above.insert(0, self._lines[line].strip().lstrip("# "))
            line -= 1
        return " ".join(above)

    def _read_defaults(self, node: yaml.MappingNode, group: str) -> None:
        import yaml

        entries = next((value.value for key, value in node.value if key.value == "defaults"), [])
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, yaml.ScalarNode):
                if entry.value == "_self_":
                    self.is_first = not self.defaults
                else:
                    self.defaults.append(f"{group}={entry.value}")
            elif isinstance(entry, yaml.MappingNode):
                for key, value in entry.value:
                    part = str(key.value).removeprefix("override ").partition("@")[0]
                    part = part.lstrip("/") if part.startswith("/") else f"{group}/{part}"
                    names = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    self.defaults += [f"{part}={one.value}" for one in names]


def _typed(node: yaml.Node) -> str:
    """A value as it is typed on a command line."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return f"[{','.join(map(_typed, node.value))}]"
    if isinstance(node, yaml.MappingNode):
        return f"{{{','.join(f'{key.value}:{_typed(value)}' for key, value in node.value)}}}"
    return str(node.value) or ("''" if getattr(node, "style", None) else "null")


def _loader() -> type[yaml.SafeLoader]:
    """The fast one, where the library has been built with it."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
