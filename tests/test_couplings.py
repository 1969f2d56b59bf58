"""An override that names other keys means in every sweep what it means in a single run."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose as compose_one
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, flag_override

import forked_runs
from diffsweep.sweep.plan.compose import compose
from diffsweep.sweep.search.study import known_points
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import resolved
from hydra_plugins.diffsweep_grid import GridSweeper
from hydra_plugins.diffsweep_optuna import OptunaSweeper
from test_compose import loading, swept, written
from tiny import TINY

ROOT = Path(__file__).parent.parent

# Key -> values: each pair is what a user could type behind a key, `,` between them for a sweep.
AXES = {
    "seed": ["3", "${far}", "${plain.number}", "${net.width}", "${.far}", "'${far}'"],
    "far": ["2", "5", "${seed}", "${oc.env:COMPOSE_TEST}", "${oc.env:NOWHERE,7}", "${plain.deep.a}"],
    "plain.number": ["4", "6", "${far}", "${.deep.a}", "${..far}", "str(5)", "${oc.select:far}"],
    "plain.text": ["word", "is ${far}", "${seed}-${.number}", "\\${seed}", '"${chain.two}"', "${oc.env:NO,'q, far'}"],
    "plain.items": [
        "[1,2]",
        "[${far},${seed}]",
        "[[${far}],{a:${seed}}]",
        "${net.layers}",
        "[${..number}]",
        "[str(5)]",
    ],
    "plain.deep": ["{a:3}", "{a:${far}}", "{b:${..number},a:'${.b}'}", "{b:[${net.width}]}", "{c:${seed}}"],
    "plain.deep.a": ["8", "${seed}", "${.b}", "${..number}", "${plain.items[0]}", "x${far}y${seed}"],
    "chain.two": ["${seed}", "9", "${net.name}", "'${net.${chain.text}}'"],
    "net.width": ["16", "32", "${far}", "${solver.order}", "${.size}", "${..seed}"],
    "net": ["small", "large", "relative", "${solver}", "decoded"],
    "net.layers": ["[${.width}]", "[5]", "${plain.items}"],
    "solver": ["euler", "heun", "{order:${far}}"],
    "solver.nfe": ["30", "${.grid.points}", "${.order}", "${far}"],
    "solver/grid": ["even", "odd"],
    "+new": ["1", "${far}", "{deep:${seed}}", "${.far}", "${plain}"],
    "++plain.rate": ["2", "${plain.number}"],
    "whole.a": ["3", "${far}"],
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPOSE_TEST", "11")
    return written(tmp_path)


def single(loader: ConfigLoader, overrides: Sequence[str]) -> str:
    """The config of a single run, or that there is none."""
    try:
        cfg = loader.load_configuration("config", list(overrides), run_mode=RunMode.RUN)
        with flag_override(cfg, ["struct", "readonly"], False):
            del cfg["hydra"]
        return repr(resolved(cfg))
    except Exception:
        return "refused"


def in_sweep(loader: ConfigLoader, master: DictConfig, cell: Sequence[str]) -> str:
    try:
        (composed,) = compose(loader, master, [cell])
    except Exception:
        return "refused"
    return repr(composed.config)


def drawn(number: int) -> Iterator[dict[str, list[str]]]:
    """Axes of sweeps, each in another order, most of them with values that name other keys."""
    draw = random.Random(0)
    for _ in range(number):
        keys = draw.sample(list(AXES), draw.randint(2, 4))
        yield {key: draw.sample(AXES[key], draw.choice([1, 1, 2])) for key in keys}


def cells(axes: dict[str, list[str]]) -> list[list[str]]:
    return [
        list(cell) for cell in itertools.product(*([f"{key}={one}" for one in values] for key, values in axes.items()))
    ]


def test_a_cell_that_couples_keys_is_that_of_a_single_run(tree: Path, tmp_path: Path) -> None:
    same = refused = 0
    with loading(tree, f"hydra.sweep.dir={tmp_path / 'sweep'}") as (loader, master):
        for axes in drawn(30):
            expected = [single(loader, cell) for cell in cells(axes)]
            batch = swept(GridSweeper(), loader, master, [f"{key}={','.join(values)}" for key, values in axes.items()])
            # All cells at once where that is possible: what one of them needs must not change another.
            if "refused" not in expected:
                assert [repr(one.config) for one in compose(loader, master, batch)] == expected, axes
                same += len(expected)
                continue
            for cell, texts, one in zip(batch, cells(axes), expected, strict=True):
                assert in_sweep(loader, master, cell) == one, texts
                refused += one == "refused"
    assert same > 30
    assert refused > 10


COUPLED = [
    *TINY,
    "training.steps=20,30",
    "training.warmup=${training.steps}",
    "evaluation.seed=${seed}",
    "training.clip=0.5",
    "dataset.size='${oc.decode:${oc.env:SIZE}}'",
    "training.batch_size=${.steps}",
    "seed=0,4",
    "++ema.decay=0.9,'${oc.select:training.clip}'",
]
STUDY = """
    # @package _global_
    hydra:
      sweeper:
        params:
          training.steps: 20,30
          training.warmup: ${training.steps}
          evaluation.seed: ${seed}
          training.clip: 0.5
          dataset.size: '"${oc.decode:${oc.env:SIZE}}"'
          training.batch_size: '"${training.steps}"'
          seed: 0,4
          ema.decay: 0.9,"${training.clip}"
    """


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python train.py` with these words, in a folder of its own that has our configs."""
    return forked_runs.run([str(ROOT / "train.py"), *words], folder, os.environ | {"SIZE": "900"}, 300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The fit and the cell of every single run of COUPLED: what each says that it would do."""
    folder, found = tmp_path_factory.mktemp("alone"), {}
    axes = {key: values.split(",") for key, _, values in (word.partition("=") for word in COUPLED)}
    for words in cells(axes):
        said = python(folder, *words, "mode=plan").stderr
        match = re.search(r"fit (\w+) is to be trained, cell (\w+) is to be evaluated", said)
        assert match, said
        found[" ".join(words)] = match[1], match[2]
    assert len(set(found.values())) == len(found) == 8
    return found


@pytest.mark.parametrize("launcher", ["local", "slurm"])
@pytest.mark.parametrize("named", [False, True], ids=["typed", "named"])
def test_a_launcher_is_handed_the_cells_of_single_runs(
    alone: dict[str, tuple[str, str]], tmp_path: Path, launcher: str, named: bool
) -> None:
    study = tmp_path / "own" / "sweeps" / "study.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(textwrap.dedent(STUDY))
    # The command line has the last word about a key.
    rest = [word for word in TINY if f" {word.partition('=')[0]}: " not in STUDY]
    words = [f"--config-dir={study.parents[1]}", *rest, "+sweeps=study"] if named else COUPLED
    done = python(tmp_path, "-m", *words, f"hydra/launcher={launcher}", "mode=read_only")
    assert done.returncode == 1, done.stderr
    (plan,) = tmp_path.glob("runs/sweeps/*/plan.json")
    tasks = [(task["fit"], task["cell"]) for task in json.loads(plan.read_text())["tasks"]]
    assert tasks == list(alone.values())


def test_a_search_tries_what_a_single_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIZE", "900")
    params = "{training.warmup: '${training.steps}', training.batch_size: '${.steps},16'}"
    words = [f"hydra.sweeper.params={params}", "hydra.sweeper.sampler.name=grid", "hydra.sweeper.n_trials=8"]
    fixed = [
        "dataset=mixture",
        "dataset.size='${oc.decode:${oc.env:SIZE}}'",
        "backbone=mlp",
        "sampler=ddim",
        "sampler={nfe:9}",
    ]
    axes = {"training.steps": ["20", "30"], "training.warmup": ["${training.steps}"]}
    axes |= {"training.batch_size": ["${.steps}", "16"], "seed": ["1", "${training.steps}"]}
    expected = set()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for cell in cells(axes):
            expected.add(Run.of(compose_one("config", [*fixed, *cell])).cell.signature)
    with loading(ROOT / "conf", "hydra/sweeper=optuna", *words) as (loader, master):
        sweeper = OptunaSweeper(sampler="grid", n_trials=8)
        sweeper.setup(
            hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
            task_function=lambda cfg: None,
            config=master,
        )
        typed = [*fixed, "training.steps=20,30", "seed=1,${training.steps}"]
        search = sweeper._search(typed)
        search = replace(search, composition=replace(search.composition, configs=(str(ROOT / "conf"),)))
        assert {search.signed(point).cell for point in known_points(search)} == expected
    assert len(expected) == 8


def test_an_option_and_a_mapping_for_the_same_key_both_count(tree: Path, tmp_path: Path) -> None:
    typed = ["plain.number=1", "solver=heun", "solver={order:3}", "plain={number:7}", "plain.number=2"]
    with loading(tree, f"hydra.sweep.dir={tmp_path / 'sweep'}") as (loader, master):
        (cell,) = swept(GridSweeper(), loader, master, typed)
        assert in_sweep(loader, master, cell) == single(loader, typed) != "refused"
    assert cell == typed[1:]
