"""The record of a run is a folder of small files, each with one writer, and each whole or absent.

    <runs>/autoencoders/<name>/       config.yaml, status.json, metrics.jsonl, checkpoints/, latents/, pictures.png,
                                      done.json
    <runs>/fits/<fit>/                config.yaml, status.json, metrics.jsonl, checkpoints/, done.json
    <runs>/fits/<fit>/cells/<cell>/   config.yaml, status.json, result.json, samples.png, requests.json; error.txt on
                                      failure

A fit or autoencoder is finished when its done.json says so, a cell when its result.json says so: those are written
last, by one rename. status.json only tells people what goes on; after a kill it may say `running` for ever.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from diffsweep.files import CannotWriteError, atomic, make_folder, read_bytes, read_json, write_atomic, write_json
from diffsweep.former_names import with_current_keys, with_current_targets
from diffsweep.sweep.store.environment import recorded
from diffsweep.sweep.store.metrics_log import Metrics, read_metrics
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.provenance import provenance
from diffsweep.sweep.store.result import CHOICES, Result, finite_record
from diffsweep.sweep.store.signature import Signer, resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "CHOICES",
    "NAMED_FITS",
    "AutoencoderRecord",
    "CannotWriteError",
    "Cell",
    "Fit",
    "Metrics",
    "Run",
    "TrainingRecord",
    "atomic",
    "make_folder",
    "provenance",
    "read_json",
    "read_metrics",
    "write_atomic",
    "write_json",
]

# Keys at which a config names another fit that it needs: a teacher, a weaker model, the model that is steered.
NAMED_FITS = ("diffuser.teacher", "guidance.weak", "backbone.frozen")

State = Literal["running", "waiting", "done", "failed"]


@dataclass(frozen=True)
class Record:
    """What all stages have in common: a folder that tells its config, its state, its failure.

    `noun` is what messages call it.
    """

    noun: ClassVar[str]
    folder: Path

    @property
    def signature(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def config_file(self) -> Path:
        """config.yaml: the whole resolved config."""
        return self.folder / "config.yaml"

    @property
    def status_file(self) -> Path:
        """status.json: the last that its process said."""
        return self.folder / "status.json"

    @property
    def error_file(self) -> Path:
        """error.txt: after a failure, its reason in one line, then the traceback."""
        return self.folder / "error.txt"

    def write_config(self, cfg: Mapping[str, Any] | DictConfig) -> None:
        """Freeze `cfg` to config.yaml, resolved but for values from the environment.

        Raises ValueError if it does not resolve, CannotWriteError.
        """
        from omegaconf import OmegaConf

        write_atomic(self.config_file, OmegaConf.to_yaml(recorded(cfg)))

    def frozen_config(self) -> DictConfig:
        """config.yaml as OmegaConf has it, unresolved. Raises ValueError, in one line, if it cannot be read."""
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            cfg = OmegaConf.load(self.config_file)
        except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ValueError(f"{self.config_file} cannot be read as the config of a run ({reason})") from error
        if not isinstance(cfg, DictConfig):
            raise ValueError(f"{self.config_file} is not the config of a run: it holds no mapping")
        return OmegaConf.create(with_current_keys(OmegaConf.to_container(cfg)))  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """What config.yaml says; empty if it is not there or cannot be read."""
        import yaml

        # In C, if there is one: ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            read = yaml.load(read_bytes(self.config_file), Loader=loader)
        except (OSError, yaml.YAMLError, RecursionError):
            return {}
        return with_current_keys(with_current_targets(read)) if isinstance(read, dict) else {}

    def write_status(self, state: State, **fields: str | float | bool | None) -> None:
        """Say what goes on: `state` and any further `fields`; adds time, host, pid and the SLURM job if there is one.

        Raises ValueError for an unknown state, CannotWriteError.
        """
        if state not in State.__args__:
            raise ValueError(f"state {state!r} is unknown: choose one of {', '.join(State.__args__)}")
        me = Process.current()
        who = {"time": me.time, "host": me.host, "pid": me.pid}
        job = {"slurm_job": me.slurm_job} if me.slurm_job else {}
        write_json(self.status_file, {"state": state} | finite_record(fields) | who | job)

    def status(self) -> dict[str, Any] | None:
        """What status.json says; None if there is none. Raises ValueError if it is corrupt."""
        return read_json(self.status_file)

    def write_error(self, error: BaseException) -> str:
        """Write error.txt for `error` and return its first line, the reason. Raises CannotWriteError."""
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        write_atomic(self.error_file, reason + "\n\n" + "".join(traceback.format_exception(error)))
        return reason

    def error(self) -> str | None:
        """The first line of error.txt; None if there is none."""
        try:
            return read_bytes(self.error_file).decode(errors="replace").partition("\n")[0]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return f"{self.error_file} cannot be read: {error.strerror or error}"


@dataclass(frozen=True)
class TrainingRecord(Record):
    """The folder of what is trained: the numbers of its steps, its checkpoints, and that it is finished."""

    @property
    def metrics_file(self) -> Path:
        """metrics.jsonl: see `Metrics`."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def done_file(self) -> Path:
        """done.json: present when the training is finished."""
        return self.folder / "done.json"

    def result(self) -> dict[str, Any] | None:
        """What `write_done` recorded; None unless the training is finished and that can be read."""
        return _finished(self.done_file)

    @property
    def done(self) -> bool:
        """Whether the training is finished."""
        return self.result() is not None

    def write_done(self, record: Mapping[str, Any]) -> None:
        """Declare the training finished, with `record` as in `Cell.write_result`; an earlier error.txt goes."""
        _finish(self.done_file, self.error_file, record)


@dataclass(frozen=True)
class AutoencoderRecord(TrainingRecord):
    """The folder of one autoencoder: its training, pictures, and the latents of the data that it was trained on."""

    noun: ClassVar[str] = "autoencoder"

    @classmethod
    def named(cls, signature: str | None, runs: str | Path) -> AutoencoderRecord | None:
        """That of this signature below the folder `runs`; None for None."""
        return None if signature is None else cls(Path(runs) / "autoencoders" / signature)

    @property
    def latents(self) -> Path:
        """The folder of latents."""
        return self.folder / "latents"

    @property
    def pictures_file(self) -> Path:
        """pictures.png: images, their reconstructions, and what the decoder makes of the prior."""
        return self.folder / "pictures.png"


@dataclass(frozen=True)
class Fit(TrainingRecord):
    """The folder of one training of a diffusion model."""

    noun: ClassVar[str] = "fit"

    def cell(self, signature: str) -> Cell:
        """The cell of this training with that signature, whether it exists or not."""
        return Cell(self.folder / "cells" / signature)

    def cells(self) -> list[Cell]:
        """All cells of this training that have a folder, by name."""
        folder = self.folder / "cells"
        if not folder.is_dir():
            return []
        return [Cell(below) for below in sorted(folder.iterdir()) if below.is_dir() and below.name[0] != "."]


class Signatures(Protocol):
    """What names a cell.

    Attributes:
        fit: signature of its training.
        cell: its own.
    """

    @property
    def fit(self) -> str: ...

    @property
    def cell(self) -> str: ...


@dataclass(frozen=True)
class Cell(Record):
    """The folder of one training as seen by one sampler and one evaluation."""

    noun: ClassVar[str] = "cell"

    @classmethod
    def of(cls, named: Signatures, runs: str | Path) -> Cell:
        """The cell below the folder `runs` whose signatures an object has, as a result."""
        return Fit(Path(runs) / "fits" / named.fit).cell(named.cell)

    @property
    def fit(self) -> Fit:
        """The training that this cell evaluates."""
        return Fit(self.folder.parent.parent)

    @property
    def result_file(self) -> Path:
        """result.json: present when the cell is finished."""
        return self.folder / "result.json"

    @property
    def samples_file(self) -> Path:
        """samples.png: the grid."""
        return self.folder / "samples.png"

    @property
    def requests_file(self) -> Path:
        """requests.json: what each sample was asked for; of samples that were asked for nothing there is none."""
        return self.folder / "requests.json"

    def result(self) -> Result | None:
        """Its result; None unless the cell is finished and its result can be read."""
        record = _finished(self.result_file)
        return None if record is None else Result.parse(record)

    @property
    def done(self) -> bool:
        """Whether the cell is finished."""
        return self.result() is not None

    def write_result(self, result: Result) -> None:
        """Declare the cell finished: result.json appears with `result` and status "done", and error.txt goes.

        Readers may trust that every number in it is finite: a NaN or infinite one becomes null, and a key
        `<key>_reason` says which it was. Raises ValueError for a nested value, CannotWriteError.
        """
        _finish(self.result_file, self.error_file, result.flat())


@dataclass(frozen=True)
class Run:
    """Where one composed config has its record, and which options it was composed of.

    `autoencoder` is that in whose latents its model works; None if it works on the data.
    """

    fit: Fit
    cell: Cell
    choices: Mapping[str, str] = field(default_factory=dict)
    autoencoder: AutoencoderRecord | None = None

    @classmethod
    def of(
        cls,
        cfg: Mapping[str, Any] | DictConfig,
        choices: Mapping[str, str] | None = None,
        runs: str | Path | None = None,
    ) -> Run:
        """The run that `cfg` asks for, under the folder `runs` (default: `cfg.paths.runs`).

        `choices` maps a config group to the chosen option, as in Hydra's runtime choices. Raises ValueError as
        `fit_signature` does, and if neither names a folder.
        """
        plain = resolved(cfg)
        if runs is None:
            paths = plain.get("paths")
            runs = paths.get("runs") if isinstance(paths, Mapping) else None
        if runs is None:
            raise ValueError("no folder for runs: set paths.runs=...")
        signer = Signer()
        (fit_name, cell_name), autoencoder = signer.sign(plain), signer.sign_autoencoder(plain)
        fit = Fit(Path(runs) / "fits" / fit_name)
        return cls(fit, fit.cell(cell_name), dict(choices or {}), AutoencoderRecord.named(autoencoder, runs))


def _finish(path: Path, error_file: Path, record: Mapping[str, Any]) -> None:
    write_json(path, finite_record(record) | {"status": "done"})
    with suppress(OSError):
        error_file.unlink()


def _finished(path: Path) -> dict[str, Any] | None:
    # One that cannot be read is one to do again, not a reason to stop a sweep: so corrupt is as good as absent.
    try:
        record = read_json(path)
    except ValueError:
        return None
    return record if record is not None and record.get("status") == "done" else None
