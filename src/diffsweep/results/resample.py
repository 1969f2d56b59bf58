"""New samples of a finished run, with other settings than those it was evaluated with."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.mistakes import one_line
from diffsweep.project import main_conf
from diffsweep.results.lookup import find
from diffsweep.settings import NO_PICTURES, GivenPictures, SampleChoice
from diffsweep.sweep.store.record import Cell, Fit
from diffsweep.sweep.store.result import GROUPS

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from diffsweep.results.lookup import Selector
    from diffsweep.runs.resample import FreshSamples


DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")


class SampleRequest(NamedTuple):
    """Samples that are to be drawn: of which run, with which config and seed.

    Attributes:
        record: the cell or training that was named.
        fit: the training.
        cfg: its frozen config, changed as requested.
        seed: sample seed.
        choices: options of conf/ by group, as far as they are recorded.
        choice: what the samples are asked for in the place of what those of an evaluation are.
        given: pictures that samples are made of.
    """

    record: Fit | Cell
    fit: Fit
    cfg: DictConfig
    seed: int
    choices: dict[str, str]
    choice: SampleChoice
    given: GivenPictures = NO_PICTURES

    @property
    def name(self) -> str:
        """A name for a folder of the samples."""
        guidance = self.choices.get("guidance", "none")
        words = [self.choices.get("sampler", "sampler"), *([guidance] if guidance != "none" else [])]
        labels, negative = self.choice.labels, self.choice.negative_label
        words += [f"label{'-'.join(map(str, labels))}"] if labels else []
        words += [] if negative is None else [f"not{negative}"]
        texts = [*self.choice.prompts, self.choice.negative_prompt]
        # Texts may be of any length and letters.
        words += [f"prompt{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]}"] if any(texts) else []
        kinds = {"like": self.given.like, "from": self.given.start, "inpaint": self.given.inpaint}
        words += ["_".join([kind, *(Path(path).stem for path in paths[:1])]) for kind, paths in kinds.items() if paths]
        return "_".join([self.record.signature, *words, f"nfe{self.cfg.sampler.nfe}", f"seed{self.seed}"])

    def settings(self, drawn: FreshSamples) -> dict[str, Any]:
        """What is recorded with the samples: all that they depend on, and where they came from."""
        from diffsweep.sweep.store.environment import recorded
        from diffsweep.sweep.store.record import provenance

        return {
            "cell": self.record.signature if isinstance(self.record, Cell) else None,
            "fit": self.fit.signature,
            **{group: self.choices.get(group) for group in GROUPS},
            "samples": len(drawn.samples),
            "broken_samples": drawn.broken,
            "seed": self.seed,
            "nfe": drawn.nfe,
            "nfe_asked": self.cfg.sampler.nfe,
            "config": {group: recorded(self.cfg)[group] for group in ("sampler", "guidance")},
            "labels": list(self.choice.labels),
            "negative_label": self.choice.negative_label,
            "prompts": list(self.choice.prompts),
            "negative_prompt": self.choice.negative_prompt,
            "requests": drawn.requests,
            **({"pictures": self.given.settings()} if self.given else {}),
            "precision": drawn.precision,
            "device": str(drawn.device),
            "sample_seconds": drawn.seconds,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **provenance(),
        }


def sample_request(
    run: Selector,
    *,
    seed: int | None = None,
    nfe: int | None = None,
    sampler: str | None = None,
    guidance: str | None = None,
    changes: Sequence[str] = (),
    runs: str | Path = "runs",
    device: str = "auto",
    config_dir: str | Path | None = None,
    labels: Sequence[int] = (),
    negative_label: int | None = None,
    given: GivenPictures = NO_PICTURES,
    prompts: Sequence[str] = (),
    negative_prompt: str | None = None,
) -> SampleRequest:
    """The request that `sample` draws: the frozen settings of a cell or training, changed by those that are given.

    Raises:
        ValueError: for a cell, an option, a setting or a device that is not there, or a config that is not trusted.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"config_dir={config_dir} is no folder")
    record = find(run, runs)
    fit = record.fit if isinstance(record, Cell) else record
    if (fit.result() or {}).get("external"):
        raise ValueError(f"{record.signature} has images that were made elsewhere, and no model")
    if not fit.done:
        raise ValueError(f"the training {fit.signature} of {record.signature} is not finished")
    if not record.config_file.exists():
        raise ValueError(f"{record.config_file} is not there: choose another cell, or its training {fit.signature}")
    cfg = record.frozen_config()
    groups = ("dataset", "backbone", "sampler", "guidance", "evaluation", "trainer", "paths")
    if any(group not in cfg for group in groups):
        raise ValueError(f"{record.config_file} is not the config of a run that can be sampled: it was cut or altered")
    from diffsweep.runs.trust import check_targets

    check_targets(cfg, record.config_file)
    result = record.result() if isinstance(record, Cell) else None
    choices = {} if result is None else result.options
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
    asked = tuple(prompts or cfg.evaluation.get("prompts") or ())
    choice = SampleChoice(tuple(labels), negative_label, asked, negative_prompt)
    return SampleRequest(record, fit, cfg, cfg.evaluation.seed if seed is None else seed, choices, choice, given)


def sample(run: Selector, n: int = 64, *, show: bool = True, trust: bool = False, **settings: Any) -> Tensor:
    """Samples 0 ... n - 1 of any finished run, as `diffsweep sample` draws them.

    Number i with seed s is the image i of an evaluation with ``evaluation.seed=s``, rounding on another device aside.

    Args:
        run: a cell or training, as in `find`.
        n: how many.
        show: whether to draw a bar when standard error is a terminal.
        trust: whether the run's config may name any class; else those of diffsweep, torch and your own conf/ only.
        settings: ``seed``; ``sampler`` and ``guidance``, options of conf/ (call it in the project's folder, or in one
            with a folder conf/); ``nfe``, network calls, at first those of the cell; ``changes``, as
            ["guidance.scale=2"]; ``labels`` or ``prompts``, asked for in turn, and ``negative_label`` or
            ``negative_prompt``, which guidance leads away from; ``given``, a `GivenPictures`; ``device``, auto, cpu or
            gpu; ``runs``; ``config_dir``, a folder of further options.
            What is not given is as the run was evaluated.

    Returns:
        uint8 (n, C, H, W), or float points (n, 2).

    Raises:
        ValueError: for what is not there, or does not go together.
    """
    from diffsweep.runs.resample import resample
    from diffsweep.runs.trust import trusting

    with trusting(*filter(None, [settings.get("config_dir")]), everything=trust):
        request = sample_request(run, **settings)
        asked: dict[str, Any] = {"choice": request.choice, "given": request.given}
        drawn = resample(request.cfg, request.fit, n, seed=request.seed, show=show, **asked)
        return drawn.samples


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
            raise ValueError(one_line(error)) from error


def _composed(group: str, option: str, words: Sequence[str], config_dir: str | Path | None) -> Any:
    """An option of conf/ as Hydra composes it; its interpolations stay, for they are about the run's own config."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from diffsweep.sweep.plan.added_parameters import accept_added_parameters

    accept_added_parameters()
    search = f"hydra.searchpath=[{f'file://{Path(config_dir).absolute()}' if config_dir else ''}]"
    try:
        with initialize_config_dir(str(main_conf()), version_base="1.3"):
            composed = compose("config", overrides=[search, f"{group}={option}", *words])
    except HydraException as error:
        raise ValueError(one_line(error)) from error
    return OmegaConf.create(OmegaConf.to_container(composed[group], resolve=False))  # type: ignore[arg-type]
