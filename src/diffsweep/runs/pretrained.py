"""The model that `pretrained=` names: a foreign folder or file, or a fit of `<runs>/fits` that was imported before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from diffsweep.conditioners.text import text_encoder
from diffsweep.conditioners.text_encoder import pipeline_content
from diffsweep.hub import repository, snapshot
from diffsweep.interop import checkpoint
from diffsweep.mistakes import did_you_mean, spell
from diffsweep.runs.trust import check_targets
from diffsweep.sweep.store.record import Fit

if TYPE_CHECKING:
    from torch import Tensor


class Pretrained(Protocol):
    """A model that is there already."""

    def field(self, name: str, shape: Callable[[], Sequence[int]]) -> Any:
        """What `${checkpoint:NAME}` stands for, for a network that sees data of a shape.

        Raises:
            ValueError: also for a name that is none.
        """
        ...

    def understood(self) -> list[str]:
        """What was understood of it, one line each."""
        ...

    def content(self) -> tuple[str, str, Mapping[str, Tensor]]:
        """Name of its format, digest of its weights, and those by their names in the backbone. Raises ValueError."""
        ...


@dataclass(frozen=True)
class _Foreign:
    found: checkpoint.Checkpoint

    def field(self, name: str, shape: Callable[[], Sequence[int]]) -> Any:
        return _one(name, self.found.fields(shape))()

    def understood(self) -> list[str]:
        return self.found.understood()

    def content(self) -> tuple[str, str, Mapping[str, Tensor]]:
        state = self.found.state()
        if (text := self.found.text) is not None:
            state["empty_text"] = torch.zeros(text.length, text.width) if text.zero_if_empty else _empty_text(text)
        return self.found.format, self.found.digest(), state


@dataclass(frozen=True)
class _Fit:
    """An imported fit: its own config has what its checkpoint said."""

    fit: Fit
    cfg: DictConfig

    def field(self, name: str, shape: Callable[[], Sequence[int]] = tuple) -> Any:
        places = {key: f"backbone.{key}" for key in ("network", "target", "level", "scale", "sigma_data")}
        places |= {
            "classes": "backbone.network_classes",
            "schedule": "backbone.schedule",
            "weights": "diffuser.weights",
            "output": "guidance.output",
            "text_shape": "backbone.text_shape",
            "text_encoder": "condition.text.encoder",
            "text_length": "condition.text.length",
            "text_width": "condition.text.width",
            "text_pipeline": "condition.text.pipeline",
        }
        try:
            found = OmegaConf.select(self.cfg, _one(name, places))
        except OmegaConfBaseException as error:
            raise ValueError(f"{self.fit.config_file} is not the config of an imported fit") from error
        if name == "text_shape":
            # Fits of version 0.1 were told no text.
            return [] if found is None else OmegaConf.to_container(found)
        if name == "output":
            # What samplers do with x0 is the run's choice; "imported" alone tells what the scheduler did.
            found = found.output if OmegaConf.is_dict(found) and "output" in found else _KEEP
        return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found

    def understood(self) -> list[str]:
        return [f"the fit {self.fit.signature}, imported from {(self.fit.result() or {}).get('imported_from')}"]

    def content(self) -> tuple[str, str, Mapping[str, Tensor]]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.fit.checkpoints / "ema.safetensors"
        try:
            return str((self.fit.result() or {}).get("format")), self.field("weights"), load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _empty_text(text: checkpoint.TextReader) -> Tensor:
    folder = str(text.folder)
    content = pipeline_content(folder, text.pipeline)
    return text_encoder(folder, text.pipeline, content, text.length, text.width)([""])[0][0]


_KEEP = {"_target_": "diffsweep.diffusion.guidance.Keep"}


def find(named: object, runs: str | Path) -> Pretrained:
    """The model of that name.

    Args:
        named: Path of a folder or file, `hf://OWNER/NAME` of Hugging Face's hub, or the name of an imported fit.
        runs: Folder of all runs.

    Raises:
        ValueError: in one line, if there is none, or it cannot be read.
    """
    if not isinstance(named, str) or not named.strip():
        raise ValueError(f"pretrained={spell(named)} must name a folder or file of a trained model, or an imported fit")
    fit = Fit(Path(runs) / "fits" / named)
    if not Path(named).exists() and "/" not in named and fit.folder.is_dir():
        return _of_fit(fit, named)
    name = repository(named)
    try:
        place = Path(named) if name is None else snapshot(name, "model")
        found = _read(str(place), _stamp(place))
        # Only a network that is no part of ours may name somebody's code.
        check_targets(OmegaConf.create({"backbone": {"network": found.network}}), place)
        return _Foreign(found)
    except ValueError as error:
        raise ValueError(f"pretrained={named}: {error}") from error


def _of_fit(fit: Fit, named: str) -> _Fit:
    record = fit.result()
    if record is None or record.get("origin") != "imported":
        what = "is not finished" if record is None else "was trained here: sample it by its own choices"
        raise ValueError(f"pretrained={named}: this fit {what}")
    try:
        cfg = OmegaConf.load(fit.config_file)
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"pretrained={named}: {fit.config_file} cannot be read") from error
    if not isinstance(cfg, DictConfig) or not all(OmegaConf.is_dict(cfg.get(key)) for key in ("backbone", "diffuser")):
        raise ValueError(f"pretrained={named}: {fit.config_file} is not the config of an imported fit")
    check_targets(cfg, fit.config_file)
    return _Fit(fit, cfg)


# Every field of every cell of a sweep asks.
@lru_cache(16)
def _read(named: str, stamp: tuple[tuple[str, int, int], ...]) -> checkpoint.Checkpoint:
    return checkpoint.read(Path(named))


def _stamp(source: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files of a folder, or of a file: another one is read anew."""
    files = [source] if source.is_file() else sorted([*source.glob("*"), *source.glob("*/*")])
    known = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in known)


def _one(name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"a checkpoint has no {name}{did_you_mean(name, known)}")
    return known[name]
