"""Finished runs in Python: a table of all cells, any of their models, new samples, and what a choice is worth.

    >>> from diffsweep import results
    >>> df = results.load("runs", "dataset=digits")                 # doctest: +SKIP
    >>> results.compare(df, by="sampler")                           # doctest: +SKIP
    >>> images = results.sample("best", 64, sampler="heun")         # doctest: +SKIP

A choice is compared on pairs of cells that differ in nothing else, so that whatever makes all cells of a kind good or
bad (much training, an easy schedule) falls out of the difference.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.sweep import scan
from diffsweep.sweep.record import Cell, Fit

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from torch import Tensor

    from diffsweep.diffusion import Denoiser
    from diffsweep.report.compare import Difference
    from diffsweep.training.redraw import Redrawn

GROUPS = ("diffuser", "sampler", "schedule", "backbone", "dataset")

# What few cells differ in.
_CATEGORIES = {*GROUPS, "guidance", "metric", "extractor", "reference_split", "resize", "sweep"}

# Besides the choices: what is recorded of a cell and must agree, and the settings that it comes from.
_ALIKE = {
    "nfe_asked": ("sampler.nfe",),
    "seed": ("seed",),
    "sample_seed": ("evaluation.seed",),
    "fit_steps": ("training.steps",),
}

# Settings that the protocol tells, or that change no result.
_SAID_ELSEWHERE = ("evaluation.samples", "evaluation.reference", "metric", "extractor", "evaluation.metrics")

DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")


def load(runs: str | Path = "runs", *filters: str) -> pd.DataFrame:
    """All finished cells, one a row, with the columns of their result.json.

    The choices are categories, numbers are numbers (whole ones that some cells lack: Int64), and `created` is a time.
    `folder` is where the cell lies; NAME_jackknife, by which `compare` finds its intervals, is left there.

    Args:
        runs: folder of all runs.
        filters: as of `diffsweep results`: "sampler=ddim,heun", "fd_digits<0.5", or the name of a sweep.

    Raises:
        ValueError: if there are no finished cells, or none passes, or a filter cannot be understood.
    """
    unreadable: list[str] = []
    every = scan.results(runs, unreadable)
    if unreadable:
        warnings.warn(f"left out as unreadable: {', '.join(unreadable)}", stacklevel=2)
    if not every:
        raise ValueError(f"no finished runs in {runs}: `python train.py` makes one")
    chosen = scan.select(every, filters, runs)
    if not chosen:
        raise ValueError(f"none of the {len(every):,} finished runs passes {' '.join(filters)}")
    import pandas as pd

    columns = {name: None for result in chosen for name in result}
    table: dict[str, Any] = {name: _typed(name, [result.get(name) for result in chosen]) for name in columns}
    fits = Path(runs).absolute() / "fits"
    table["folder"] = [f"{fits}/{result['fit']}/cells/{result['cell']}" for result in chosen]
    return pd.DataFrame(table)


def _typed(name: str, values: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    absent = any(value is None for value in values)
    if name == "created":
        return pd.to_datetime(pd.Series(values, dtype=object), utc=True, errors="coerce")
    if name in _CATEGORIES and kinds <= {str}:
        return pd.Categorical(values)
    if kinds and kinds <= {int, float}:
        if float in kinds:
            return np.array(values, dtype=float)
        if all(value is None or abs(value) < 2**63 for value in values):
            return pd.array(values, dtype="Int64" if absent else "int64")
    if kinds == {bool}:
        return pd.array(values, dtype="boolean" if absent else "bool")
    return pd.Series(values, dtype=None if kinds == {str} else object)


def find(which: Any, runs: str | Path = "runs") -> Fit | Cell:
    """The folder of a cell or of a training.

    Args:
        which: a signature or the beginning of one, a row of `load`, `last` (the cell that was finished last), `best`
            (the best of those that were measured as the last one was), or what this function returns.
        runs: folder of all runs, if `which` does not say.

    Raises:
        ValueError: if there is none, or several, or it has no model.
    """
    if isinstance(which, (Fit, Cell)):
        return which
    if not isinstance(which, str):
        row = which._asdict() if hasattr(which, "_asdict") else which
        try:
            known = row.get("folder")
            return Cell(Path(known)) if known else Fit(Path(runs) / "fits" / row["fit"]).cell(row["cell"])
        except (AttributeError, LookupError, TypeError):
            raise ValueError(f"{which!r} is neither a signature nor a row of results.load") from None
    if which in ("best", "last"):
        return _chosen(which, runs)
    fits = [Fit(folder) for folder in sorted(Path(runs, "fits").glob("*")) if folder.name[0] != "."]
    records: list[Fit | Cell] = [*fits, *(cell for fit in fits for cell in fit.cells())]
    found = [record for record in records if record.signature == which]
    found = found or [record for record in records if which and record.signature.startswith(which)]
    if not found:
        raise ValueError(
            f"{which!r} is no cell or fit in {runs}, nor the beginning of one, nor best or last; "
            "`diffsweep results --format csv` names them"
        )
    if len(found) > 1:
        named = ", ".join(record.signature for record in found[:6])
        raise ValueError(f"{which!r} begins {len(found)} names in {runs}: {named}{' ...' if len(found) > 6 else ''}")
    return found[0]


def _chosen(word: str, runs: str | Path) -> Cell:
    from diffsweep.report.compare import finite, protocol, rank

    own = [result for result in scan.results(runs) if result.get("images") is None]
    if not own:
        raise ValueError(f"no finished runs in {runs}: `python train.py` makes one")
    chosen = max(own, key=lambda result: str(result.get("created")))
    if word == "best":
        alike = [result for result in own if protocol(result) == protocol(chosen)]
        chosen = min(alike, key=lambda result: rank(result, str(result["metric"])))
        if finite(chosen, str(chosen["metric"])) is None:
            raise ValueError(f"no cell in {runs} has a {chosen['metric']}: name one")
    return Fit(Path(runs) / "fits" / chosen["fit"]).cell(chosen["cell"])


def load_fit(which: Any, runs: str | Path = "runs") -> Denoiser:
    """The model of a finished training with its averaged weights, frozen, on the CPU: ``denoiser(x, level, labels)``.

    Arguments and errors as `find`; also ValueError if the training is not finished, or has no model.
    """
    from diffsweep.training.finished import finished

    record = find(which, runs)
    fit = record.fit if isinstance(record, Cell) else record
    return finished(fit.folder.parent.parent, fit.signature)


class Asked(NamedTuple):
    """What is to be drawn.

    Attributes:
        record: the cell or training that was named.
        fit: the training.
        cfg: its frozen config, with what was asked to be otherwise.
        seed: sample seed.
        choices: options of conf/ by group, as far as they are recorded.
    """

    record: Fit | Cell
    fit: Fit
    cfg: DictConfig
    seed: int
    choices: dict[str, str]

    @property
    def name(self) -> str:
        """A name for a folder of the samples."""
        guidance = self.choices.get("guidance", "none")
        words = [self.choices.get("sampler", "sampler"), *([guidance] if guidance != "none" else [])]
        return "_".join([self.record.signature, *words, f"nfe{self.cfg.sampler.nfe}", f"seed{self.seed}"])

    def settings(self, drawn: Redrawn) -> dict[str, Any]:
        """What is recorded with the samples: all that they depend on, and where they came from."""
        from omegaconf import OmegaConf

        from diffsweep.sweep.record import provenance

        return {
            "cell": self.record.signature if isinstance(self.record, Cell) else None,
            "fit": self.fit.signature,
            **{group: self.choices.get(group) for group in (*GROUPS, "guidance")},
            "samples": len(drawn.samples),
            "broken_samples": drawn.broken,
            "seed": self.seed,
            "nfe": drawn.nfe,
            "nfe_asked": self.cfg.sampler.nfe,
            "config": {
                group: OmegaConf.to_container(self.cfg[group], resolve=True) for group in ("sampler", "guidance")
            },
            "precision": self.cfg.trainer.precision,
            "device": str(drawn.device),
            "sample_seconds": drawn.seconds,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **provenance(),
        }


def asked(
    which: Any,
    *,
    seed: int | None = None,
    nfe: int | None = None,
    sampler: str | None = None,
    guidance: str | None = None,
    changes: Sequence[str] = (),
    runs: str | Path = "runs",
    device: str = "auto",
    config_dir: str | Path | None = None,
) -> Asked:
    """What `sample` draws: the frozen settings of a cell or training, but for those that are given.

    Raises:
        ValueError: for a cell, an option, a setting or a device that is not there.
    """
    from omegaconf import DictConfig, OmegaConf

    record = find(which, runs)
    fit = record.fit if isinstance(record, Cell) else record
    if (fit.result() or {}).get("external"):
        raise ValueError(f"{record.signature} has images that were made elsewhere, and no model")
    if not fit.done:
        raise ValueError(f"the training {fit.signature} of {record.signature} is not finished")
    if not record.config_file.exists():
        raise ValueError(f"{record.config_file} is not there: choose another cell, or its training {fit.signature}")
    cfg = OmegaConf.load(record.config_file)
    assert isinstance(cfg, DictConfig)
    result = (record.result() if isinstance(record, Cell) else None) or {}
    choices = {group: result[group] for group in (*GROUPS, "guidance") if result.get(group)}
    budget = cfg.sampler.nfe
    words = [_word(word) for word in changes]
    for group, chosen in (("sampler", sampler), ("guidance", guidance)):
        own = [word for key, word in words if key.replace("/", ".").startswith(f"{group}.")]
        if chosen is not None:
            choices[group] = chosen
            cfg[group] = _composed(group, chosen, own, config_dir)
        else:
            _set(cfg, own, group)
    if sampler is not None and not any(key == "sampler.nfe" for key, _ in words):
        # Samplers are compared at equal cost.
        cfg.sampler.nfe = budget
    if nfe is not None:
        cfg.sampler.nfe = nfe
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind in ("auto", "cpu") or not number.isdecimal())):
        raise ValueError(f"device {device} is none of {', '.join(DEVICES)} or gpu:NUMBER")
    cfg.trainer.update(
        accelerator=kind, devices=f"{number}," if number else 1, num_nodes=1, strategy="auto", threads=None
    )
    cfg.paths.runs = str(fit.folder.parent.parent)
    return Asked(record, fit, cfg, cfg.evaluation.seed if seed is None else seed, choices)


def sample(which: Any, n: int = 64, *, show: bool = True, **settings: Any) -> Tensor:
    """Samples 0 ... n - 1 of any finished run, as `diffsweep sample` draws them.

    Number i with seed s is the image i of an evaluation with ``evaluation.seed=s``, rounding on another device aside.

    Args:
        which: the run, as in `find`.
        n: how many.
        show: whether to draw a bar when standard error is a terminal.
        settings: ``seed``; ``sampler`` and ``guidance``, options of conf/ (call it in the project's folder, or in one
            with a folder conf/); ``nfe``, network calls, at first those of the cell; ``changes``, as
            ["guidance.scale=2"]; ``device``, auto, cpu or gpu; ``runs``; ``config_dir``, a folder of further options.
            What is not given is as the run was evaluated.

    Returns:
        uint8 (n, C, H, W), or float points (n, 2).

    Raises:
        ValueError: for what is not there, or does not go together.
    """
    from diffsweep.training.redraw import redraw

    what = asked(which, **settings)
    return redraw(what.cfg, what.fit, n, seed=what.seed, show=show).samples


def _word(word: str) -> tuple[str, str]:
    key = word.lstrip("+~").partition("=")[0]
    if "=" not in word or not key.replace("/", ".").startswith(("sampler.", "guidance.")):
        raise ValueError(f"{word} sets nothing of sampling: write sampler.KEY=VALUE or guidance.KEY=VALUE")
    return key, word


def _set(cfg: DictConfig, words: Sequence[str], group: str) -> None:
    """Settings of the option that is frozen."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from diffsweep.sweep.compose import in_one_line

    for word in words:
        key = word.partition("=")[0]
        parent, _, last = key.rpartition(".")
        if "/" in key or not key[0].isalpha():
            raise ValueError(f"{word} composes another {group}: name that too, as --{group} NAME")
        node = OmegaConf.select(cfg, parent)
        if not OmegaConf.is_dict(node) or last not in node:
            known = ", ".join(f"{parent}.{name}" for name in node if name[0] != "_") if OmegaConf.is_dict(node) else ""
            raise ValueError(f"{key} is no setting of this run{f'; there are {known}' if known else ''}")
        try:
            OmegaConf.update(cfg, key, OverridesParser.create().parse_override(word).value())
        except HydraException as error:
            raise ValueError(in_one_line(error)) from error


def _composed(group: str, option: str, words: Sequence[str], config_dir: str | Path | None) -> Any:
    """An option of conf/ as Hydra composes it; its interpolations stay, for they are about the run's own config."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from diffsweep.sweep.compose import in_one_line

    conf = Path("conf").absolute()
    if not (conf / "config.yaml").is_file():
        raise ValueError(f"there is no conf/config.yaml here to find {group}={option} in: go to the project's folder")
    search = f"hydra.searchpath=[{f'file://{Path(config_dir).absolute()}' if config_dir else ''}]"
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", overrides=[search, f"{group}={option}", *words])
    except HydraException as error:
        raise ValueError(in_one_line(error)) from error
    return OmegaConf.create(OmegaConf.to_container(composed[group], resolve=False))  # type: ignore[arg-type]


def compare(df: pd.DataFrame, by: str = "sampler", metric: str | None = None) -> pd.DataFrame:
    """What each option of a choice is worth, on pairs of cells that differ in nothing else: each against the best.

    Cells pair when they agree in the other choices, the network calls asked for, seeds, training steps, all further
    settings and the protocol of measurement. An option is its name with its own settings, as `ddim noise.eta=0.5`. The
    best has the best mean once each set of alike cells is centred, so that an option which was only tried where all
    are good gains nothing by that.

    Args:
        df: of `load`, or part of it.
        by: one of the five choices, guidance, nfe_asked, seed, sample_seed or fit_steps.
        metric: a number of the cells; their main one if they have the same.

    Returns:
        One row an option, the best first:

        - `mean`: of its cells that have a partner, and `cells`, how many these are;
        - `difference`: mean of option - best over their `pairs`, with `low` and `high`: so wide that all rows hold at
          once with 95 % (Bonferroni). With several pairs the interval is Student's over them (`interval` is "pairs"):
          it is about further pairs of this kind. One pair tells nothing about others; its interval is then that of the
          finite number of samples ("samples", `report.compare.difference`);
        - `wins`, `ties`, `losses`: pairs in which the option was better than the best, could not be told from it with
          95 %, or was worse.

    Raises:
        ValueError: for a choice or number that is not there, cells of several metrics, or if no two cells pair.
    """
    import pandas as pd

    from diffsweep.report.compare import LEVEL, level_for, t_quantile

    options, metric = _paired(df, by, metric)
    centres = _centred(options, metric)
    if not centres:
        raise ValueError(f"no two cells differ in {by} and in nothing else that they were asked for")
    sign = _sign(metric)
    best = min(centres, key=lambda option: sign * centres[option])
    rows = []
    for option in sorted(options, key=lambda option: sign * centres.get(option, math.inf)):
        cells = options[option]
        partnered = [key for key in cells if sum(key in others for others in options.values()) > 1]
        row: dict[str, Any] = {by: option, "cells": len(partnered)}
        row["mean"] = _mean([cells[key][metric] for key in partnered])
        shared = [key for key in cells if key in options[best]] if option != best else []
        values = [cells[key][metric] - options[best][key][metric] for key in shared]
        level = level_for(len(centres) - 1)
        row |= {"difference": 0.0 if option == best else _mean(values), "low": math.nan, "high": math.nan}
        row |= {"interval": None, "pairs": len(shared)}
        found = [_difference(cells[key], options[best][key], metric, LEVEL) for key in shared]
        if len(values) == 1:
            only = _difference(cells[shared[0]], options[best][shared[0]], metric, level)
            row |= {"low": only.low, "high": only.high, "interval": "samples"} if only else {}
        elif values:
            spread = math.sqrt(math.fsum((value - row["difference"]) ** 2 for value in values) / (len(values) - 1))
            reach = t_quantile((1 + level) / 2, len(values) - 1) * spread / math.sqrt(len(values))
            row |= {"low": row["difference"] - reach, "high": row["difference"] + reach, "interval": "pairs"}
        row["wins"] = sum(one is not None and one.told_apart and sign * one.value < 0 for one in found)
        row["losses"] = sum(one is not None and one.told_apart and sign * one.value > 0 for one in found)
        row["ties"] = len(found) - row["wins"] - row["losses"]
        rows.append(row)
    columns = [by, "cells", "mean", "difference", "low", "high", "interval", "pairs", "wins", "ties", "losses"]
    return pd.DataFrame(rows, columns=columns)


Cells = dict[Hashable, dict[str, Any]]


def _paired(df: pd.DataFrame, by: str, metric: str | None) -> tuple[dict[Any, Cells], str]:
    """Option -> what else a cell was asked for -> the cell; and the metric."""
    from diffsweep.report.compare import numbers, protocol

    able = [*GROUPS, "guidance", *_ALIKE]
    if by not in able:
        raise ValueError(f"cells are not compared by {by}: choose one of {', '.join(able)}")
    records = [_record(row) for row in df.to_dict("records")]
    records = [record for record in records if record.get("images") is None]
    if metric is None:
        mains = sorted({str(record["metric"]) for record in records if record.get("metric")})
        if len(mains) != 1:
            raise ValueError(f"these cells have the main metrics {', '.join(mains) or '(none)'}: say metric=NAME")
        metric = mains[0]
    able_cells = [record for record in records if isinstance(record.get(metric), (int, float))]
    if not able_cells:
        known = sorted({name for record in records for name in numbers(record)})
        raise ValueError(f"no cell has a number {metric}; choose one of {', '.join(known)}")
    options: dict[Any, Cells] = {}
    again = 0
    for record in sorted(able_cells, key=lambda record: str(record.get("created"))):
        own, others = _settings(str(record.get("overrides") or ""), by)
        option = record.get(by)
        option = " ".join([str(option), *own]) if by in (*GROUPS, "guidance") else option
        alike = tuple(record.get(name) for name in able if name != by)
        protocol_of = tuple(map(str, protocol({**record, "metric": metric})))
        cells = options.setdefault(option, {})
        key = (alike, protocol_of, others)
        again += key in cells
        cells[key] = record
    if again:
        warnings.warn(
            f"{again} of these cells were asked for in the same words as later ones (defaults changed meanwhile?): the "
            "last of each counts",
            stacklevel=3,
        )
    return options, metric


def _record(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """A row of the table as the result.json that it came from, as far as a comparison needs it."""
    record: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, (str, int, float)):
            record[str(name)] = None if value != value else value
        else:
            # What pandas has for an absent value is no value to us; times are ordered by their text.
            record[str(name)] = None if value is None or str(value) in ("<NA>", "NaT") else str(value)
    return record


def _settings(overrides: str, by: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The settings of the option itself, and those that are of something else; none that columns tell."""
    from diffsweep.report.terminal import split_overrides
    from diffsweep.sweep.signature import NEUTRAL

    columns = {*GROUPS, "guidance", *(key for keys in _ALIKE.values() for key in keys)}
    own, others = [], set()
    for word in split_overrides(overrides):
        key = word.lstrip("+").partition("=")[0].replace("/", ".")
        if key in columns or any(f"{key}.".startswith(f"{one}.") for one in (*NEUTRAL, *_SAID_ELSEWHERE)):
            continue
        if key.startswith(f"{by}."):
            own.append(word.lstrip("+").removeprefix(by)[1:])
        else:
            others.add(word)
    return tuple(sorted(own)), frozenset(others)


def _centred(options: Mapping[Any, Cells], metric: str) -> dict[Any, float]:
    """How far an option's cells lie from the mean of all that are alike, on average; of those that have a partner."""
    alike: dict[Hashable, list[float]] = {}
    for cells in options.values():
        for key, cell in cells.items():
            alike.setdefault(key, []).append(cell[metric])
    means = {key: _mean(values) for key, values in alike.items() if len(values) > 1}
    apart = {
        option: [cell[metric] - means[key] for key, cell in cells.items() if key in means]
        for option, cells in options.items()
    }
    return {option: _mean(values) for option, values in apart.items() if values}


def _sign(metric: str) -> int:
    from diffsweep.report.compare import larger_is_better

    return -1 if larger_is_better(metric) else 1


def _difference(a: Mapping[str, Any], b: Mapping[str, Any], metric: str, level: float) -> Difference | None:
    from diffsweep.report.compare import difference

    first, second = ({**one, **(Cell(Path(one["folder"])).result() or {})} for one in (a, b))
    return difference(first, second, metric, level)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
