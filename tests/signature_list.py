"""What commands ask for, signed: the same for the list of signatures (data/signatures.json) and for its test."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from diffsweep.sweep.plan import compose as sweep_compose
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.plan.prepare import make_plan
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import Signer
from hydra_plugins.diffsweep_grid import GridSweeper

CONF = Path(__file__).parent.parent / "conf"

# File, what it chooses now, what it chose in version 0.1.
_CHOICES = (
    ("config.yaml", "  - sampler: recommended\n", "  - sampler: dpmpp_2m\n"),
    ("experiment/fashion_mnist.yaml", "  - override /condition: label\n", ""),
    ("experiment/fashion_mnist.yaml", "  - override /guidance: autoguidance_self\n", ""),
    (
        "experiment/fashion_mnist.yaml",
        "  keep: [0.125]\n",
        "",
    ),
)

# Of a fit and of a cell.
Signatures = list[str]

_FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def _conf() -> str:
    """A copy of conf/ with the choices of version 0.1: what is chosen may change, what a choice is signed as not."""
    conf = Path(_FOLDER.name) / "conf"
    shutil.copytree(CONF, conf)
    for name, now, then in _CHOICES:
        file = conf / name
        text = file.read_text(encoding="utf-8")
        assert text.count(now) == 1
        file.write_text(text.replace(now, then), encoding="utf-8")
    return str(conf)


@contextmanager
def _master(*words: str) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """Hydra's loader, and the config from which a sweep is launched."""
    with initialize_config_dir(_conf(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", list(words), run_mode=RunMode.MULTIRUN)


def single_runs(commands: Iterable[str]) -> dict[str, Signatures]:
    """What `python train.py COMMAND` signs, composed by Hydra, a command being its words with spaces between them."""
    with initialize_config_dir(_conf(), version_base="1.3"):
        runs = {command: Run.of(compose("config", overrides=command.split())) for command in commands}
    return {command: [run.fit.signature, run.cell.signature] for command, run in runs.items()}


def cells(commands: Iterable[str]) -> dict[str, Signatures]:
    """What a sweep signs of which each command is one combination, composed by the sweep itself."""
    with _master() as (loader, master):
        sign = Signer().sign
        batch = [command.split() for command in commands]
        composed = sweep_compose.compose(loader, master, batch)
        return {" ".join(cell.overrides): list(sign(cell.config)) for cell in composed}


class _Planner(Launcher):
    """Plans what the sweeper hands over, and launches nothing."""

    plan: Plan

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self.plan = make_plan(self.loader, self.config, job_overrides, initial_job_idx)
        return []


@functools.cache
def plan(command: str) -> Plan:
    """The plan of `python train.py -m COMMAND`."""
    with _master(*command.split(), "mode=plan", "hydra.sweep.dir=nowhere") as (loader, master):
        planner = _Planner()
        planner.loader, planner.config = loader, master
        sweeper = GridSweeper(master.hydra.sweeper.params)
        sweeper.hydra_context = HydraContext(config_loader=loader, callbacks=Callbacks())
        sweeper.config, sweeper.launcher = master, planner
        sweeper.sweep(command.split())
        return planner.plan
