"""Finished runs in Python: a table of all cells, any of their models, new samples, and what a choice is worth.

    >>> from diffsweep import results
    >>> df = results.load("runs", "dataset=digits")                 # doctest: +SKIP
    >>> results.compare(df, by="sampler")                           # doctest: +SKIP
    >>> images = results.sample("best", 64, sampler="heun")         # doctest: +SKIP

A choice is compared on pairs of cells that differ in nothing else, so that whatever makes all cells of a kind good or
bad (much training, an easy schedule) falls out of the difference.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.sweep import scan
from diffsweep.sweep.record import CHOICES, Cell, Fit

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from torch import Tensor

    from diffsweep.diffusion import Denoiser
    from diffsweep.training.redraw import Redrawn

# What few cells differ in.
_CATEGORIES = {*CHOICES, "guidance", "metric", "extractor", "reference_split", "resize", "sweep"}

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
    return Cell.of(chosen, runs)


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
            **{group: self.choices.get(group) for group in (*CHOICES, "guidance")},
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
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"config_dir={config_dir} is no folder")
    record = find(which, runs)
    fit = record.fit if isinstance(record, Cell) else record
    if (fit.result() or {}).get("external"):
        raise ValueError(f"{record.signature} has images that were made elsewhere, and no model")
    if not fit.done:
        raise ValueError(f"the training {fit.signature} of {record.signature} is not finished")
    if not record.config_file.exists():
        raise ValueError(f"{record.config_file} is not there: choose another cell, or its training {fit.signature}")
    try:
        cfg = OmegaConf.load(record.config_file)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError):
        cfg = None
    groups = ("dataset", "backbone", "sampler", "guidance", "evaluation", "trainer", "paths")
    if not isinstance(cfg, DictConfig) or any(group not in cfg for group in groups):
        raise ValueError(f"{record.config_file} is not the config of a run that can be sampled: it was cut or altered")
    result = (record.result() if isinstance(record, Cell) else None) or {}
    choices = {group: result[group] for group in (*CHOICES, "guidance") if result.get(group)}
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


def compare(df: pd.DataFrame, by: str | Sequence[str] = "sampler", metric: str | None = None) -> pd.DataFrame:
    """What each option of a choice is worth beside the best one, on pairs of cells that differ in nothing else.

    Args:
        df: of `load`, or part of it; cells that were measured alike.
        by: a group, such as sampler or guidance, or a setting that was varied, such as "sampler.nfe"; several are taken
            together, so that an option is one of each.
        metric: a number of the cells; their main one, if they have the same.

    Returns:
        One row an option, the best first (its difference is 0): `difference`, the mean of option - best over `pairs`
        many pairs; its interval from `low` to `high`, null where nothing tells it, so wide that with 95 % the truly
        best option is the first or one whose interval contains 0; `wins` and `losses` against the best; `seeds`, how
        many training seeds the pairs are of. With one, the interval is that of a finite number of samples from these
        very models; with several, it is about other seeds too (see `report.compare`).

    Raises:
        ValueError: for cells that were measured differently, a choice that does not vary, a number that no cell has, if
            no two cells differ in this choice only, or if there are no cells.
    """
    import pandas as pd

    from diffsweep.report.compare import PROTOCOL, apart, finite, larger_is_better, protocol
    from diffsweep.report.compare import by as having
    from diffsweep.report.factors import effects, factors
    from diffsweep.report.spelling import spelled

    keys = [by] if isinstance(by, str) else list(by)
    if not keys:
        raise ValueError("by is empty: name a choice, such as sampler")
    cells = _records(df)
    mains = {str(cell["metric"]) for cell in cells if cell.get("metric")}
    if metric is None and len(mains) != 1:
        raise ValueError(f"the main metrics of these cells are {', '.join(sorted(mains)) or 'none'}: say metric=NAME")
    name = metric or mains.pop()
    cells = having(cells, name)
    differing = [PROTOCOL[place][1] for place in apart(list({protocol(cell) for cell in cells}))]
    if differing:
        raise ValueError(f"these cells differ in {', '.join(differing)}: choose some, as df[df.samples == 500]")
    folders = dict(zip(df["cell"], df["folder"], strict=True))
    cells = spelled(cells, lambda cell: Cell(Path(folders[cell["cell"]])).config())
    varied = factors(cells)
    unvaried = [key for key in keys if key not in varied]
    if unvaried:
        raise ValueError(f"these cells do not differ in {unvaried[0]}, but in {', '.join(varied) or 'nothing'}")
    found = effects(cells, name, *keys)
    if not found:
        others = [key for key in varied if key not in keys]
        why = f"they differ in {', '.join(others)} as well" if others else "they are of different trainings"
        if sum(finite(cell, name) is not None for cell in cells) < 2:
            why = f"the others have no {name}"
        raise ValueError(f"no two of these cells differ in {' and '.join(keys)} only: {why}")
    options = {", ".join(one): one for one in zip(*(varied[key] for key in keys), strict=True)}
    rows = [dict(zip(keys, options[found[0].beside], strict=True)) | {"difference": 0.0}]
    rows[0] |= dict.fromkeys(("pairs", "wins", "losses", "seeds"), 0)
    for effect in found:
        row: dict[str, Any] = dict(zip(keys, options[effect.option], strict=True))
        row |= {"difference": sum(effect.pairs) / len(effect.pairs), "pairs": len(effect.pairs), "seeds": 1}
        if effect.mean is not None:
            row |= {"low": effect.mean.low, "high": effect.mean.high, "seeds": effect.mean.seeds}
        worse = (gap < 0 if larger_is_better(name) else gap > 0 for gap in effect.pairs)
        rows.append(row | {"wins": effect.wins, "losses": sum(worse)})
    return pd.DataFrame(
        rows, columns=pd.Index([*keys, "difference", "low", "high", "pairs", "wins", "losses", "seeds"])
    )


def _records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """The results of the cells of a table, NAME_jackknife included."""
    if not {"cell", "folder"} <= set(df):
        raise ValueError("a table without the column folder of results.load names no cells: keep it, and cell")
    if df.empty:
        raise ValueError("there are no cells to compare: the table is empty")
    found = []
    for folder in df["folder"]:
        result = Cell(Path(folder)).result()
        if result is None:
            raise ValueError(f"{folder} has no result any more: load the table again")
        found.append(result)
    return found
