"""What Weights & Biases is told of a record, whether by a run that goes on or afterwards, from the record's files.

A fit and a cell are one W&B run each, named by their signature. Training step s is W&B's step s, and W&B ignores steps
that it has: so whoever goes on with a run tells all of metrics.jsonl again, and nothing is doubled or lost. The digest
of done.json or result.json in a run's summary says which record it is complete for.

Offline, W&B cannot know what its server has, and `wandb sync` of a second folder would double steps. Folders that it
must not send are marked as sent; `diffsweep wandb-sync` asks the server and tells what it lacks.

Nothing that W&B does may make a run fail: it is said once, in one line, and W&B is left alone from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from diffsweep.files import read_json, write_json
from diffsweep.messages import say
from diffsweep.sweep.store.record import CHOICES

MODES = ("auto", "online", "offline")
PICTURES = "samples"
# W&B's key of pictures; "samples" is a result's number of them.
GRID = "grid"
NOTE = "wandb/told.json"
OFFLINE = "offline"

# Of the config: what says nothing about a run; and, of a fit, what is done with its weights only.
_APART = ("hydra", "logger", "mode", "paths", "resources")
_OF_CELLS = ("sampler", "guidance", "evaluation")

_SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "max": max,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}
# Which of them are shown of a metric; of any other, as of a distance, the least and the last.
_SHOWN = {"gradient_norm": ("max", "last"), "images_per_second": ("mean", "last"), "lr": ("last",)}
_USUAL = ("min", "last")

# Seconds that the server is waited for: at the probe, at the start of a run, at its end.
_PROBE, _START, _END = 3.0, 60.0, 60.0

# W&B refuses longer names, and these characters in that of a project.
LONGEST = 128
_NOT_IN_PROJECTS = "/\\#?%:"

# Why this process could not use a server: it is not waited for again, which would cost a minute at each of many cells.
_unusable: dict[str, str] = {}


@dataclass(frozen=True)
class Place:
    """Where runs are shown.

    Attributes:
        project: W&B project.
        entity: W&B team or user; None is the user's default.
        mode: "online", "offline", or "auto": online if there is a key and the server answers within 3 s.

    Raises:
        ValueError: for another mode, or a project that W&B would refuse.
    """

    project: str = "diffsweep"
    entity: str | None = None
    mode: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"logger mode={self.mode} is unknown: choose one of {', '.join(MODES)}")
        name = self.project
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST or set(name) & set(_NOT_IN_PROJECTS):
            raise ValueError(
                f"logger.wandb.project={name} names no W&B project: use text of 1 to {LONGEST} characters, none of "
                + " ".join(_NOT_IN_PROJECTS)
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Place | None:
        """Where the run of a config is shown; None if it is not. Raises ValueError as the constructor."""
        entry = (config.get("logger") or {}).get("wandb")
        if not entry:
            return None
        return cls(**{key: entry[key] for key in ("project", "entity", "mode") if key in entry})


@dataclass(frozen=True)
class Subject:
    """What is logged: a fit, a cell, or the summary of a sweep.

    Attributes:
        kind: W&B's job type.
        signature: its id, so that whoever resumes goes on in the same log.
        folder: its folder.
        name: for people, as "unet cosine v".
        group: the sweep it belongs to, if any.
        config: what W&B shows as its config.
        batch_size: images per training step.
    """

    kind: Literal["fit", "cell", "sweep summary"]
    signature: str
    folder: Path
    name: str
    group: str | None
    config: Mapping[str, Any]
    batch_size: int = 1

    @classmethod
    def of(
        cls,
        kind: Literal["fit", "cell"],
        folder: Path,
        config: Mapping[str, Any],
        choices: Mapping[str, Any],
        group: str | None,
    ) -> Subject:
        """A fit or a cell in its folder, from its resolved config and what was chosen of each group."""
        left_out = _OF_CELLS if kind == "fit" else ()
        # Of a fit that no cell or sweep tells of, the choices are not known.
        shown = (
            [str(choices.get(name) or "?") for name in CHOICES if name not in left_out] if choices else [folder.name]
        )
        known = {kind: folder.name} | ({"fit": folder.parent.parent.name} if kind == "cell" else {})
        batch = (config.get("training") or {}).get("batch_size")
        size = batch if isinstance(batch, int) else 1
        return cls(kind, folder.name, folder, " ".join(shown), group, flat(config, choices, left_out) | known, size)


def flat(config: Mapping[str, Any], choices: Mapping[str, Any], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """A config without depth: first what was chosen of each group, then all settings as `sampler/nfe`.

    A part is named by its class, as `sampler/solver`: "Heun". There are no dots in keys, which W&B takes for depth.
    """
    first = [*CHOICES, "guidance"]
    found: dict[str, Any] = {name: choices[name] for name in first if choices.get(name) and name not in left_out}
    for key, below in config.items():
        if key not in (*_APART, *left_out):
            for name, value in _leaves(str(key), below):
                found.setdefault(name, value)
    return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, below in value.items():
        if key == "_target_":
            yield name, str(below).rpartition(".")[2]
        elif not str(key).startswith("_"):
            yield from _leaves(f"{name}/{key}", below)


def digest(record: Mapping[str, Any]) -> str:
    """The name of a content of done.json or result.json."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _words(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says in words: how its numbers were measured, of which commit, with which versions."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, (str, bool)) and key not in ("grid", "status") and not key.endswith("_jackknife")
    }


def pictures(folder: Path) -> list[tuple[int, Path]]:
    """(steps done, picture) of what was drawn of a training while it went on, in order."""
    return sorted((int(path.stem), path) for path in (folder / PICTURES).glob("*.png") if path.stem.isdecimal())


@dataclass
class Mirror:
    """An open W&B run. Nothing here raises once it is open, except where it says so.

    Attributes:
        subject: what is logged.
        run: of W&B.
        offline: whether nothing is sent.
        first: the first step that W&B does not have yet.
        hint: command that sends an offline run.
        lost: whether W&B has failed.
    """

    subject: Subject
    place: Place
    run: Any
    offline: bool
    hint: str | None = None
    lost: bool = False
    first: int = 0
    _axes: set[str] = field(default_factory=set)
    _record: str | None = None
    _pictures: list[tuple[int, Path]] = field(default_factory=list)

    @classmethod
    def open(cls, subject: Subject, place: Place, *, quiet: bool = False, fall_back: bool = True) -> Mirror | None:
        """Begin or go on with the W&B run of a subject; None if W&B is disabled or, said in one line, cannot.

        `quiet`: do not say where it is to be seen. `fall_back`: one that cannot be online is offline.
        """
        try:
            if _settings().mode == "disabled":
                if place.mode != "auto":
                    say("W&B is disabled (WANDB_MODE=disabled, or `wandb disabled`): this run is not shown there")
                return None
            offline, why = _offline(place)
            if why and not fall_back:
                raise ConnectionError(why)
            if why:
                say(f"W&B: {why}: this run is kept offline")
            try:
                run = _init(subject, place, offline)
            except Exception as error:
                if offline or not fall_back:
                    raise
                _unusable[where(place)] = _line(error)
                say(f"W&B: {_line(error)}: this run is kept offline")
                _release()
                offline, run = True, _init(subject, place, True)
            mirror = cls(subject, place, run, offline)
            mirror._begin()
        except Exception as error:
            say(f"W&B: {_line(error)}: this run is not shown there")
            return None
        if not mirror.offline and not quiet:
            say(f"W&B: {run.url}")
        return mirror

    def _begin(self) -> None:
        folder, name = self.subject.folder, self.subject.signature
        self.first = 0 if self.offline else self.run.starting_step
        self._pictures = pictures(folder)
        mine = Path(self.run.dir).parent
        earlier = [path for path in (folder / "wandb").glob(f"*run-*-{name}") if path.name != mine.name]
        sent = [path for path in earlier if not path.name.startswith("offline-") or list(path.glob("*.synced"))]
        # Whatever they hold is told again here.
        for path in earlier:
            _mark_as_sent(path, name)
        if self.offline:
            self.hint = f"diffsweep wandb-sync {name}" if sent else shlex.join(["wandb", "sync", str(mine)])
        choices = {key: self.subject.config[key] for key in (*CHOICES, "guidance") if key in self.subject.config}
        self._note({"group": self.subject.group, "choices": choices})
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("images", hidden=True)

    @property
    def told(self) -> str | None:
        """Digest of the record that W&B is complete for; None if it is not."""
        found = self.run.summary.get("record")
        return found if isinstance(found, str) else None

    def row(self, values: Mapping[str, float], step: int) -> None:
        """Tell numbers of a training step, counted from 0, and the pictures up to it that have not been told."""
        while self._pictures and self._pictures[0][0] - 1 <= step:
            done, path = self._pictures.pop(0)
            self.picture(path, done - 1)
        if step >= self.first and not self.lost:
            self._log({**values, "step": step + 1, "images": (step + 1) * self.subject.batch_size}, step)

    def picture(self, path: Path, step: int) -> None:
        """Show a picture of a training step, counted from 0."""
        if step >= self.first and not self.lost:
            with self._careful():
                self._log({GRID: _image(path, f"step {step + 1}")}, step)

    def trained(self, done: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], weights: Path | None = None) -> None:
        """Tell that a fit is finished, and what its metrics came to; with `weights` also those, as an artifact."""
        if self.lost:
            return
        if weights is not None:
            with self._careful():
                import wandb

                artifact = wandb.Artifact(f"weights-{self.subject.signature}", type="model", metadata=numbers(done))
                # They change no more, so no copy is made of them.
                artifact.add_file(str(weights), policy="immutable", skip_cache=True)
                self.run.log_artifact(artifact)
        # Those of metrics are told below: a key is either a number or least and last of them.
        self._close_rows(rows, {key: value for key, value in numbers(done).items() if key not in ("loss", "step")})
        with self._careful():
            self.run.config.update(_words(done), allow_val_change=True)
        self.complete(digest(done))

    def evaluated(self, result: Mapping[str, Any], grid: Path) -> None:
        """Tell a cell's result, with its picture, and as a row of a table."""
        if self.lost:
            return
        main = result.get("metric")
        with self._careful():
            import wandb

            self.run.config.update(_words(result), allow_val_change=True)
            picture = _image(grid, self.subject.name) if grid.exists() else None
            names = [*CHOICES, "guidance", *([main, f"{main}_low", f"{main}_high"] if main else []), "nfe"]
            table = wandb.Table(columns=[*names, "samples"])
            table.add_data(*(result.get(name) for name in names), picture)
            shown = {GRID: picture} if picture is not None else {}
            self._log({**numbers(result), **shown, "cell": table}, self.first)
        self.complete(digest(result))

    def show(self, values: Mapping[str, Any], record: str) -> None:
        """Tell tables and plots of a record with this digest."""
        if self.lost:
            return
        self._log(dict(values), self.first)
        self.complete(record)

    def close(self, *, failed: bool = False, preempted: bool = False, rows: Sequence[Mapping[str, Any]] = ()) -> bool:
        """End the run; returns whether W&B has all of it, as far as it says. `rows`: what the metrics were."""
        if rows and not self.lost:
            self._close_rows(rows, {})
        with self._careful():
            if preempted:
                self.run.mark_preempting()
            self.run.finish(exit_code=int(failed))
            if self.hint and self.hint.startswith("diffsweep"):
                _mark_as_sent(Path(self.run.dir).parent, self.subject.signature)
            if self._record and not self.lost:
                place = OFFLINE if self.offline else where(self.place)
                self._note({"record": self._record, "where": place, "run": Path(self.run.dir).parent.name})
        return not self.lost

    def _note(self, values: Mapping[str, Any]) -> None:
        folder = self.subject.folder
        write_json(folder / NOTE, noted(folder) | dict(values))

    def _close_rows(self, rows: Sequence[Mapping[str, Any]], more: Mapping[str, Any]) -> None:
        """Tell what the metrics came to. W&B's own summary of a run that was resumed has seen its last part only."""
        last = max((row["step"] for row in rows), default=-1)
        with self._careful():
            if last >= self.first:
                # Else the last row, which it still waits for more of, would replace the summary.
                self.run.log({}, step=last, commit=True)
        series: dict[str, list[float]] = {}
        for row in rows:
            for key, value in numbers(row).items():
                series.setdefault(key, []).append(value)
        series.pop("step", None)
        came_to = {key: {how: _SUMMARIES[how](values) for how in _shown(key)} for key, values in series.items()}
        self._summarise({**more, **came_to})

    def complete(self, record: str) -> None:
        """Tell that W&B has all of a record with this digest."""
        self._summarise({"record": record})
        self._record = record

    def _summarise(self, values: Mapping[str, Any]) -> None:
        with self._careful():
            for key, value in values.items():
                self.run.summary[key] = value

    def _log(self, values: dict[str, Any], step: int) -> None:
        with self._careful():
            for key in [key for key in values if key not in self._axes]:
                self._axes.add(key)
                if self.subject.kind == "fit" and key not in ("step", "images", GRID):
                    self.run.define_metric(key, step_metric="step", summary=",".join(_shown(key)))
            self.run.log(values, step=step)

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.lost:
                return
            self.lost = True
            say(f"W&B: {_line(error)}: the rest of this run is not shown there; diffsweep wandb-sync mends that")


def reachable() -> str | None:
    """Why W&B cannot be online here; None if there is a key and the server accepts a connection within 3 s.

    wandb.init itself would wait for an unreachable one for minutes, and for a key at a terminal for ever.
    """
    try:
        settings = _settings()
        from wandb.sdk.lib.wbauth import read_netrc_auth

        known = settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url)
    except Exception as error:
        # As a key that cannot be one.
        return _line(error)
    address = urlparse(settings.base_url)
    host = address.hostname or ""
    if not known:
        return f"there is no key for {host} (`wandb login` stores one)"
    proxy = None if proxy_bypass(host) else getproxies().get(address.scheme)
    asked = urlparse(proxy) if proxy else address
    try:
        port = asked.port or (80 if asked.scheme == "http" else 443)
        with socket.create_connection((asked.hostname or host, port), timeout=_PROBE):
            return None
    except (OSError, ValueError):
        return f"{asked.hostname} does not answer"


def _settings() -> Any:
    """W&B's own settings, of its variables and of what `wandb login --host` and `wandb offline` have stored."""
    # Before it is loaded: what it says at the start of each run would be said once per cell.
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb.setup().settings


def _offline(place: Place) -> tuple[bool, str | None]:
    """Whether a run is to be offline, and why it must be if it need not."""
    if place.mode == "offline" or (place.mode == "auto" and _settings().mode in ("offline", "dryrun")):
        return True, None
    server = where(place)
    why = _unusable.get(server) or reachable()
    if why:
        _unusable[server] = why
    return why is not None, why


def _release() -> None:
    """Have W&B's service forget a run that could not begin; it would refuse its id as one that is in use."""
    import wandb

    wandb.teardown()


def _init(subject: Subject, place: Place, offline: bool) -> Any:
    import wandb

    return wandb.init(
        project=place.project,
        entity=place.entity,
        mode="offline" if offline else "online",
        dir=str(subject.folder),
        id=subject.signature,
        resume="allow",
        name=subject.name[:LONGEST],
        group=subject.group and subject.group[:LONGEST],
        job_type=subject.kind,
        config=dict(subject.config),
        # Several runs, one after the other or at once, in one process: each is its own.
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            init_timeout=_START,
            finish_timeout=_END,
            finish_timeout_raises=True,
            x_disable_stats=subject.kind != "fit",
            # Reading what is installed takes half a second, which a cell need not pay again.
            x_save_requirements=subject.kind == "fit",
        ),
    )


def _shown(key: str) -> tuple[str, ...]:
    return _SHOWN.get(key, _USUAL)


def _image(path: Path, caption: str) -> Any:
    import wandb

    return wandb.Image(str(path), caption=caption)


def _mark_as_sent(folder: Path, name: str) -> None:
    """Have `wandb sync` leave an offline run alone."""
    if folder.name.startswith("offline-"):
        with contextlib.suppress(OSError):
            (folder / f"run-{name}.wandb.synced").touch()


def noted(folder: Path) -> dict[str, Any]:
    """What we know of the W&B run of the record in a folder.

    `group` and `choices` that it was begun with; `record`, the digest of what was told in full, `where`, and `run`, the
    folder of W&B's files.
    """
    with contextlib.suppress(OSError, ValueError):
        return read_json(folder / NOTE) or {}
    return {}


def where(place: Place) -> str:
    """A name of the server and the project; an address may hold a password, which is no part of it."""
    address = urlparse(_settings().base_url)
    return f"{address.hostname}:{address.port or address.scheme} {place.entity or ''} {place.project}"


def _line(error: BaseException) -> str:
    # What a server answers may hold what was sent to it.
    text = re.sub(r"\b[0-9a-f]{40}\b|\bwandb_v1_\w+", "...", " ".join(str(error).split()))
    return text[:300] or type(error).__name__
