"""The plan of a sweep, written to plan.json before anything runs: its tasks, cells, fits and resolved configs.

A sweep is a list of tasks, one per set of overrides; each names its cell, and every cell its fit. Configs are kept
resolved, as a table of distinct top-level parts, because ten thousand cells share most of theirs. A job reads its
config from the plan, so later edits of YAML files do not reach it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffsweep.files import read_json, write_atomic
from diffsweep.former_names import with_current_keys, with_current_targets
from diffsweep.sweep.plan.option_keys import dropped_keys
from diffsweep.sweep.store.environment import revealed
from diffsweep.sweep.store.process import now
from diffsweep.sweep.store.record import NAMED_FITS, AutoencoderRecord, Cell, Fit, Run, TrainingRecord


@dataclass(frozen=True)
class Task:
    """One set of overrides of a sweep, and the cell that it asks for; two tasks may ask for the same cell.

    `choices` and the values of `config` are keys of `Plan.parts`; `autoencoder` is that of the fit, if it has one.
    """

    num: int
    overrides: tuple[str, ...]
    fit: str
    cell: str
    choices: str
    config: Mapping[str, str]
    autoencoder: str | None = None


@dataclass(frozen=True)
class Plan:
    """All tasks of a sweep with their configs, and the sweep's folder.

    `runs` is the folder of all records, `command` what the user typed, `parts` the distinct top-level parts of the
    configs by digest, `hydra` the launching config's `hydra` node, for callbacks in the jobs.
    """

    folder: Path
    runs: Path
    command: str = ""
    created: str = field(default_factory=now)
    tasks: tuple[Task, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hydra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the sweep: that of its folder."""
        return self.folder.name

    @property
    def file(self) -> Path:
        """plan.json."""
        return self.folder / "plan.json"

    @cached_property
    def cells(self) -> dict[str, Task]:
        """Every cell once, with the first task that asks for it."""
        found: dict[str, Task] = {}
        for task in self.tasks:
            found.setdefault(task.cell, task)
        return found

    @cached_property
    def fits(self) -> dict[str, list[str]]:
        """Every fit with its cells, in the order of the tasks."""
        found: dict[str, list[str]] = {}
        for task in self.cells.values():
            found.setdefault(task.fit, []).append(task.cell)
        return found

    @cached_property
    def autoencoders(self) -> dict[str, list[str]]:
        """Every autoencoder with the cells whose models work in its latents."""
        found: dict[str, list[str]] = {}
        for task in self.cells.values():
            if task.autoencoder is not None:
                found.setdefault(task.autoencoder, []).append(task.cell)
        return found

    @cached_property
    def trainings(self) -> dict[str, list[str]]:
        """Everything that is trained, with its cells: autoencoders, then fits."""
        return {**self.autoencoders, **self.fits}

    def training(self, signature: str) -> TrainingRecord:
        """The record of one of `trainings`."""
        folder = "autoencoders" if signature in self.autoencoders else "fits"
        kind = AutoencoderRecord if signature in self.autoencoders else Fit
        return kind(self.runs / folder / signature)

    def earlier(self, training: str) -> tuple[str, ...]:
        """The trainings of this plan that must be finished before one of `trainings` begins."""
        if training in self.autoencoders:
            return ()
        autoencoder = self.cells[self.fits[training][0]].autoencoder
        return (*([] if autoencoder is None else [autoencoder]), *self.needs[training])

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """For each fit, the fits of this plan that must be trained first, as its teacher."""
        found: dict[str, tuple[str, ...]] = {}
        for fit, cells in self.fits.items():
            named = {
                str(self.part(cell, group).get(key))
                for cell in cells
                for group, _, key in (named.partition(".") for named in NAMED_FITS)
                if isinstance(self.part(cell, group), Mapping)
            }
            found[fit] = tuple(sorted(other for other in named if other in self.fits and other != fit))
        return found

    def command_for(self, verb: str) -> str:
        """The command line that applies `verb` to this sweep, such as `diffsweep resume NAME`.

        It names the folder of runs if that is not `runs`.
        """
        runs = self.runs.absolute()
        near = runs.relative_to(Path.cwd()) if runs.is_relative_to(Path.cwd()) else runs
        return shlex.join(["diffsweep", verb, self.name, *([] if str(near) == "runs" else ["--runs", str(near)])])

    def part(self, cell: str, key: str) -> Any:
        """One top-level part of a cell's config; None if it has none. For reading only: cells share it.

        Unlike in `config`, a value from the environment is that of this process.
        """
        digest = self.cells[cell].config.get(key, "")
        if digest not in self._revealed:
            self._revealed[digest] = revealed(self.parts.get(digest))
        return self._revealed[digest]

    @cached_property
    def _revealed(self) -> dict[str, Any]:
        """Digest -> part, of those that were asked for."""
        return {}

    def config(self, cell: str) -> dict[str, Any]:
        """The whole config of a cell, resolved but for values from the environment. For reading only."""
        return with_current_keys({key: self.parts[digest] for key, digest in self.cells[cell].config.items()})

    def run(self, cell: str) -> Run:
        """Where a cell has its record."""
        task = self.cells[cell]
        fit = Fit(self.runs / "fits" / task.fit)
        autoencoder = AutoencoderRecord.named(task.autoencoder, self.runs)
        return Run(fit, fit.cell(cell), self.parts[task.choices], autoencoder)

    def cell(self, cell: str) -> Cell:
        """The record of a cell."""
        return self.run(cell).cell

    def write(self) -> None:
        """Write plan.json. Raises CannotWriteError."""
        content = asdict(self)
        del content["folder"]
        # Absolute: the jobs of a cluster may start anywhere.
        content["runs"] = str(self.runs.absolute())
        write_atomic(self.file, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> Plan:
        """The plan in a sweep's folder. Raises ValueError if there is none, or it cannot be read."""
        folder = Path(folder)
        content = read_json(folder / "plan.json")
        if content is None:
            raise ValueError(f"{folder} holds no sweep: there is no plan.json")
        try:
            tasks = tuple(
                Task(
                    task["num"],
                    tuple(task["overrides"]),
                    task["fit"],
                    task["cell"],
                    task["choices"],
                    task["config"],
                    task.get("autoencoder"),
                )
                for task in content["tasks"]
            )
            if not isinstance(content["parts"], dict) or not isinstance(content["hydra"], dict):
                raise TypeError("parts and hydra must be objects")
            return cls(
                folder,
                Path(content["runs"]),
                content["command"],
                content["created"],
                tasks,
                with_current_targets(content["parts"]),
                tuple(content["warnings"]),
                with_current_targets(content["hydra"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'plan.json'} is no plan that this version can read ({error!r})") from error

    def with_tasks(self, signed: Iterable[SignedConfig], first: int = 0) -> Plan:
        """A copy with more tasks, numbered from `first`; the warnings are about all tasks."""
        parts = dict(self.parts)
        # Cells share their parts as objects: each is written out and hashed once, not ten thousand times.
        known: dict[int, tuple[Any, str]] = {}

        def keep(part: Any) -> str:
            seen = known.get(id(part))
            if seen is not None and seen[0] is part:
                return seen[1]
            text = json.dumps(part, sort_keys=True, allow_nan=False)
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            parts.setdefault(digest, part)
            known[id(part)] = (part, digest)
            return digest

        tasks = [
            Task(
                first + index,
                tuple(one.overrides),
                one.fit,
                one.cell,
                keep(one.choices),
                {str(key): keep(part) for key, part in one.config.items()},
                one.autoencoder,
            )
            for index, one in enumerate(signed)
        ]
        every = (*self.tasks, *tasks)
        return replace(self, tasks=every, parts=parts, warnings=tuple(warnings(every)))


@dataclass(frozen=True)
class SignedConfig:
    """One composed and signed set of overrides, as `Plan.adding` takes it. `config` is plain and resolved."""

    overrides: Sequence[str]
    config: Mapping[str, Any]
    choices: Mapping[str, str | None]
    fit: str
    cell: str
    autoencoder: str | None = None


def warnings(tasks: Sequence[Task]) -> list[str]:
    """Warnings for the user before the sweep starts: axes that change no result, and cells that are named twice."""
    texts = []
    axes: dict[str, dict[str, None]] = {}
    pairs = [{key: value for key, _, value in _key_values(task.overrides)} for task in tasks]
    for one in pairs:
        for key, value in one.items():
            axes.setdefault(key, {})[value] = None
    empty = []
    for key, values in axes.items():
        if len(values) < 2:
            continue
        seen: dict[tuple[tuple[str, str], ...], tuple[set[str | None], set[str]]] = {}
        for task, one in zip(tasks, pairs, strict=True):
            rest = tuple(sorted((name, value) for name, value in one.items() if name != key))
            met, cells = seen.setdefault(rest, (set(), set()))
            met.add(one.get(key))
            cells.add(task.cell)
        compared = [cells for met, cells in seen.values() if len(met) > 1]
        if compared and all(len(cells) == 1 for cells in compared):
            empty.append(key)
            texts.append(f"{key} changes no result: its {len(values)} values ask for the same cells")
    dropped = dict(dropped_keys([task.overrides for task in tasks]))
    texts += dropped.values()
    # Combinations that differ in a key that does not apply are one, which that sentence has said.
    different = {
        (task.overrides if dropped.keys() - one.keys() else task.num): task
        for task, one in zip(tasks, pairs, strict=True)
    }
    tasks = list(different.values())
    counts = Counter(task.cell for task in tasks)
    again = sum(count - 1 for count in counts.values())
    if again and not empty:
        twice = next(cell for cell, count in counts.items() if count > 1)
        same = [" ".join(task.overrides) for task in tasks if task.cell == twice][:2]
        texts.append(f"{again} of {len(tasks)} combinations repeat another's cell, such as: {same[1]} and {same[0]}")
    return texts


def _key_values(overrides: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return (word.lstrip("+").partition("=") for word in overrides)
