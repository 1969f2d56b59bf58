"""A W&B run of a training, a cell or a sweep, written while it goes on or afterwards, from the record's files.

An autoencoder, a fit and a cell are one W&B run each, named by their signature. Training step s is W&B's step s, and
W&B ignores steps that it has: so whoever goes on with a run logs all of metrics.jsonl again, and nothing is doubled or
lost. The digest of done.json or result.json in a run's summary names the record that it is complete for.

Nothing that W&B does may make a run fail: the error is printed once, in one line, and W&B is left alone from then on.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.messages import say
from diffsweep.sweep.store.result import GROUPS, Result
from diffsweep.tracking.record_values import digest, numbers, pictures, summaries, summary_names, words
from diffsweep.tracking.run_info import RunInfo
from diffsweep.tracking.wandb_folder import earlier_runs, mark_as_sent, update_note, was_sent
from diffsweep.tracking.wandb_server import client_settings, offline, one_line, remember_unusable, server_and_project
from diffsweep.tracking.wandb_settings import LONGEST, WandbSettings

if TYPE_CHECKING:
    import wandb

# W&B's key of pictures; "samples" is a result's number of them.
GRID = "grid"
# Stands in our note for the server of a run that was kept offline.
OFFLINE = "offline"

# Seconds that the server is waited for: at the start of a run, at its end.
_START, _END = 60.0, 60.0


@dataclass
class WandbRun:
    """An open W&B run. Nothing here raises once it is open, except where it says so.

    Attributes:
        info: what is logged.
        settings: which project, whether online.
        run: of W&B.
        offline: whether nothing is sent.
        sync_command: command that sends an offline run.
        lost: whether W&B has failed.
        first: the first step that W&B does not have yet.
    """

    info: RunInfo
    settings: WandbSettings
    run: wandb.Run
    offline: bool
    sync_command: str | None = None
    lost: bool = False
    first: int = 0
    _axes: set[str] = field(default_factory=set)
    _complete_for: str | None = None
    _pictures: list[tuple[int, Path]] = field(default_factory=list)

    @classmethod
    def open(
        cls, info: RunInfo, settings: WandbSettings, *, quiet: bool = False, fall_back: bool = True
    ) -> WandbRun | None:
        """Begin or go on with a W&B run; None if W&B is disabled or, which is printed in one line, cannot.

        `quiet`: do not print where it is to be seen. `fall_back`: one that cannot be online is offline.
        """
        try:
            if client_settings().mode == "disabled":
                if settings.mode != "auto":
                    say("W&B is disabled (WANDB_MODE=disabled, or `wandb disabled`): this run is not shown there")
                return None
            is_offline, why = offline(settings)
            if why and not fall_back:
                raise ConnectionError(why)
            if why:
                say(f"W&B: {why}: this run is kept offline")
            try:
                run = _init(info, settings, is_offline)
            except Exception as error:
                if is_offline or not fall_back:
                    raise
                remember_unusable(settings, one_line(error))
                say(f"W&B: {one_line(error)}: this run is kept offline")
                _release()
                is_offline, run = True, _init(info, settings, True)
            opened = cls(info, settings, run, is_offline)
            opened._begin()
        except Exception as error:
            say(f"W&B: {one_line(error)}: this run is not shown there")
            return None
        if not is_offline and not quiet:
            say(f"W&B: {run.url}")
        return opened

    def _begin(self) -> None:
        folder, name, files = self.info.folder, self.info.signature, self._files()
        self.first = 0 if self.offline else self.run.starting_step
        self._pictures = pictures(folder)
        earlier = earlier_runs(folder, name, files)
        sent = any(was_sent(path) for path in earlier)
        # Whatever they hold is logged again here.
        for path in earlier:
            mark_as_sent(path, name)
        if self.offline:
            self.sync_command = f"diffsweep wandb-sync {name}" if sent else shlex.join(["wandb", "sync", str(files)])
        choices = {key: self.info.config[key] for key in GROUPS if key in self.info.config}
        update_note(folder, {"group": self.info.group, "choices": choices})
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("images", hidden=True)

    def _files(self) -> Path:
        """The folder of W&B's files of this run."""
        return Path(self.run.dir).parent

    @property
    def complete_for(self) -> str | None:
        """Digest of the record that W&B has all of; None if there is no such record."""
        record = self.run.summary.get("record")
        return record if isinstance(record, str) else None

    def log_row(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a training step, counted from 0, and the pictures up to it that have not been logged."""
        while self._pictures and self._pictures[0][0] - 1 <= step:
            done, path = self._pictures.pop(0)
            self.log_picture(path, done - 1)
        if step >= self.first and not self.lost:
            self._log({**values, "step": step + 1, "images": (step + 1) * self.info.batch_size}, step)

    def log_picture(self, path: Path, step: int) -> None:
        """Show a picture of a training step, counted from 0."""
        if step >= self.first and not self.lost:
            with self._careful():
                self._log({GRID: _image(path, f"step {step + 1}")}, step)

    def log_training(
        self,
        done: Mapping[str, object],
        rows: Sequence[Mapping[str, object]],
        weights: Path | None = None,
        picture: Path | None = None,
    ) -> None:
        """Log that a training is finished.

        Args:
            done: Content of done.json.
            rows: Of metrics.jsonl, which are summarised.
            weights: Uploaded as an artifact; None for none.
            picture: Of what came out; None for none.
        """
        if self.lost:
            return
        if weights is not None:
            with self._careful():
                import wandb

                artifact = wandb.Artifact(f"weights-{self.info.signature}", type="model", metadata=numbers(done))
                # They change no more, so no copy is made of them.
                artifact.add_file(str(weights), policy="immutable", skip_cache=True)
                self.run.log_artifact(artifact)
        # Those of metrics are logged below: a key is either a number or least and last of them.
        self._close_rows(rows, {key: value for key, value in numbers(done).items() if key not in ("loss", "step")})
        if picture is not None and picture.exists():
            # After the last step: W&B takes nothing for a step that is over.
            after = max((int(str(row["step"])) + 1 for row in rows), default=0)
            with self._careful():
                self._log({GRID: _image(picture, self.info.name)}, max(after, self.first))
        with self._careful():
            self.run.config.update(words(done), allow_val_change=True)
        self.complete(digest(done))

    def log_result(self, result: Result, grid: Path) -> None:
        """Log a cell's result, with the picture of its samples, and as a row of a table."""
        if self.lost:
            return
        main, values = result.main, result.values
        with self._careful():
            import wandb

            self.run.config.update(words(values), allow_val_change=True)
            picture = _image(grid, self.info.name) if grid.exists() else None
            names = [main.name, *main.interval_keys] if main.name else []
            interval = [main.value, main.low, main.high] if main.name else []
            table = wandb.Table(columns=[*GROUPS, *names, "nfe", "samples"])
            table.add_data(*map(result.option, GROUPS), *interval, result.nfe, picture)
            shown = {GRID: picture} if picture is not None else {}
            self._log({**numbers(values), **shown, "cell": table}, self.first)
        self.complete(digest(values))

    def log_tables(self, values: Mapping[str, object], record: str) -> None:
        """Log tables and plots of a record with the digest `record`."""
        if self.lost:
            return
        self._log(dict(values), self.first)
        self.complete(record)

    def close(
        self, *, failed: bool = False, preempted: bool = False, rows: Sequence[Mapping[str, object]] = ()
    ) -> bool:
        """End the run; returns whether W&B has all of it, as far as its client knows. `rows`: of metrics.jsonl."""
        if rows and not self.lost:
            self._close_rows(rows, {})
        with self._careful():
            if preempted:
                self.run.mark_preempting()
            self.run.finish(exit_code=int(failed))
            if self.sync_command and self.sync_command.startswith("diffsweep"):
                mark_as_sent(self._files(), self.info.signature)
            if self._complete_for and not self.lost:
                where = OFFLINE if self.offline else server_and_project(self.settings)
                update_note(self.info.folder, {"record": self._complete_for, "where": where, "run": self._files().name})
        return not self.lost

    def _close_rows(self, rows: Sequence[Mapping[str, object]], more: Mapping[str, object]) -> None:
        """Log the summaries of metrics. W&B's own summary of a run that was resumed has seen its last part only."""
        last = max((step for row in rows if isinstance(step := row["step"], int)), default=-1)
        with self._careful():
            if last >= self.first:
                # Else the last row, which it still waits for more of, would replace the summary.
                self.run.log({}, step=last, commit=True)
        self._summarise({**more, **summaries(rows)})

    def complete(self, record: str) -> None:
        """Note in W&B that it has all of the record with the digest `record`."""
        self._summarise({"record": record})
        self._complete_for = record

    def _summarise(self, values: Mapping[str, object]) -> None:
        with self._careful():
            for key, value in values.items():
                self.run.summary[key] = value

    def _log(self, values: dict[str, object], step: int) -> None:
        with self._careful():
            for key in [key for key in values if key not in self._axes]:
                self._axes.add(key)
                if self.info.trains and key not in ("step", "images", GRID):
                    self.run.define_metric(key, step_metric="step", summary=",".join(summary_names(key)))
            self.run.log(values, step=step)

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.lost:
                return
            self.lost = True
            say(f"W&B: {one_line(error)}: the rest of this run is not shown there; diffsweep wandb-sync mends that")


def _release() -> None:
    """Have W&B's service forget a run that could not begin; it would refuse its id as one that is in use."""
    import wandb

    wandb.teardown()


def _init(info: RunInfo, settings: WandbSettings, offline: bool) -> wandb.Run:
    import wandb

    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        mode="offline" if offline else "online",
        dir=str(info.folder),
        id=info.signature,
        resume="allow",
        name=info.name[:LONGEST],
        group=info.group and info.group[:LONGEST],
        job_type=info.kind,
        config=dict(info.config),
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
            x_disable_stats=not info.trains,
            # Reading what is installed takes half a second, which a cell need not pay again.
            x_save_requirements=info.trains,
        ),
    )


def _image(path: Path, caption: str) -> wandb.Image:
    import wandb

    return wandb.Image(str(path), caption=caption)
