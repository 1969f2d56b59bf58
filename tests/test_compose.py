"""A cell's config is what Hydra itself composes, in value, type and order; and it is signed as if it stood alone."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, flag_override
from PIL import Image

from diffsweep.sweep.plan.compose import compose
from diffsweep.sweep.store.signature import (
    INFERENCE,
    NEUTRAL,
    NEUTRAL_AT,
    Signer,
    canonical,
    cell_signature,
    fit_signature,
    resolved,
)
from hydra_plugins.diffsweep_grid import GridSweeper
from processes import PROGRAMS

CONF = Path(__file__).parent.parent / "conf"

# Every way in which one value can hang on another, and every kind of place to write to.
TREE = {
    "config.yaml": """
        defaults:
          - _self_
          - net: small
          - solver: euler
          - follower: ${net}
          - extra: null
        seed: 0
        far: 1
        same: 0
        plain: {number: 1, text: word, rate: 1e-3, nothing: null, items: [1, two, 3.0], flag: true, deep: {a: 1, b: 2}}
        chain: {one: "${chain.two}", two: "${far}", text: "is ${plain.number}"}
        whole: ${plain.deep}
        chosen: ${oc.select:plain.items.1,none}
        outside: ${oc.env:COMPOSE_TEST,default}
        escaped: \\${seed}
        typed: {1: one, x-y: dash}
        """,
    "net/small.yaml": "width: 8\nsize: ${seed}\nname: small\nlayers: [1, 2]\n",
    "net/large.yaml": "width: 64\ndepth: 3\nlayers: [1, '${seed}', {kind: conv}]\n",
    "net/relative.yaml": "width: 2\ntwice: ${.width}\nlayers: []\n",
    "net/decoded.yaml": "width: ${oc.decode:${seed}}\nlayers: []\n",
    "net/open.yaml": "width: ???\nlayers: []\n",
    "solver/euler.yaml": "defaults:\n  - grid: even\n  - _self_\norder: 1\nnfe: 20\n",
    "solver/heun.yaml": "defaults:\n  - grid: odd\n  - _self_\norder: 2\nnfe: ${.grid.points}\n",
    "solver/grid/even.yaml": "points: 4\n",
    "solver/grid/odd.yaml": "points: 5\npower: 7.0\n",
    **{
        f"follower/{name}.yaml": f"# @package plain.deep\nname: {name}\n"
        for name in ("small", "large", "relative", "decoded", "open")
    },
    "extra/toy.yaml": """
        # @package _global_
        defaults:
          - override /net: large
        seed: 5
        plain: {number: 2}
        """,
    # A group and a value of the same name are told apart by Hydra, and so must they be here.
    "same/away.yaml": "x: 1\n",
}

OPTIONS = [
    ["net=small", "net=large", "net=relative", "net=decoded", "net=open"],
    ["solver=euler", "solver=heun"],
    ["solver/grid=even", "solver/grid=odd"],
    ["extra=toy", "+same@apart=away", "~extra", "~solver", "~extra=toy"],
]
VALUES = r"""
    seed=3 seed=4.0 seed=null seed='7' seed=[1,2] seed=true seed=??? seed=abc seed=${far} seed="a\"b" seed=nan
    seed=1e-3 far=2 far=x same=1 same=away +same=away
    plain.number=5 plain.number=-0.0 plain.text="a\b" plain.text='1,2' plain.text='${seed}' plain.text=""
    plain.rate=1E-4 plain.nothing=1 plain.items=[] plain.items=[4,[5,six],null] plain.items=7
    plain.items.1=9 plain.items.7=9 plain.items=[{a:1}] plain.flag=False plain.deep.a=10 plain.deep.b=inf
    plain.deep={a:7} plain.deep=null plain.deep=1 plain.number.below=1 plain=5
    chain.one=1 chain.two=2 chain.text=t whole.a=3 whole=3 whole={z:1} chosen=1 escaped=2 typed.1=uno typed.x-y=1
    net.width=16 net.width=??? net.size=3 net.name=n net.layers=[9] net.layers.0=5 net.twice=1 net={width:1}
    solver.nfe=30 solver.order=3 solver.grid.points=6 solver.grid.power=2 solver.grid={points:9}
    +new=1 +new.deep=2 new.deep=3 ++seed=8 ++whole.a=4 ++net.extra='${plain.number}' +plain.number=1 ~seed ~plain.deep.a
    ~plain.items ~chain.two ~plain.number=1 absent=1 plain.absent=1 seed@x=1 seed=1,2 seed=${nowhere}
    +new=${oc.env:HOME} plain.flag=1,2 +hydra.note=1
"""

EVERY = VALUES.split()

Outcome = tuple[str, ...]


@contextmanager
def loading(conf: Path, *overrides: str) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)


def by_hydra(loader: ConfigLoader, master: DictConfig, cell: Sequence[str]) -> Outcome:
    """What Hydra makes of one cell, spelled out: equal texts are equal values of equal types in equal order."""
    cfg = loader.load_sweep_config(master, list(cell))
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with flag_override(cfg, ["struct", "readonly"], False):
        del cfg["hydra"]
    return repr(resolved(cfg)), repr(choices)


def by_us(loader: ConfigLoader, master: DictConfig, cells: Sequence[Sequence[str]]) -> list[Outcome]:
    composed = list(compose(loader, master, cells))
    assert [list(cell.overrides) for cell in composed] == [list(cell) for cell in cells]
    # All at the end: a cell that had changed what it shares with another would show.
    return [(repr(cell.config), repr(cell.choices)) for cell in composed]


def refusal(call: Callable[[], object]) -> Outcome | None:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def agree(loader: ConfigLoader, master: DictConfig, cells: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Compare, also the errors; how many cells were composed and how many were refused."""
    good, expected, bad = [], [], []
    for cell in cells:
        error = refusal(lambda cell=cell: expected.append(by_hydra(loader, master, cell)))
        good += [cell] if error is None else []
        bad += [(cell, error)] if error is not None else []
    for cell, ours, theirs in zip(good, by_us(loader, master, good), expected, strict=True):
        assert ours == theirs, cell
    for cell, error in bad:
        assert refusal(lambda cell=cell: list(compose(loader, master, [cell]))) == error, cell
    return len(good), len(bad)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(tmp_path: Path) -> Path:
    """The folder of configs that TREE describes."""
    for name, text in TREE.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return tmp_path / "conf"


def test_every_kind_of_override_is_composed_or_refused_as_hydra_does(tree: Path) -> None:
    with loading(tree) as (loader, master):
        good, bad = agree(loader, master, [[text] for text in chain(EVERY, *OPTIONS)])
    assert good > 50
    assert bad > 10


MEETINGS = [
    ["plain.rate=2", "++plain.rate=3"],
    ["plain.items=[5,6]", "plain.items.1=9"],
    ["plain.items=[5,6]", "++plain.items=[7]"],
    ["plain.nothing=1", "~plain.nothing=1"],
    ["plain.rate=2", "+new='${plain.rate}'"],
    ["plain.rate=2", "plain.rate=3", "plain={text:x}"],
    ["solver.grid.points=6", "solver.grid=null"],
    ["solver.grid.points=6", "solver.grid={points:8}"],
]


def test_where_overrides_meet_their_order_counts_as_for_hydra(tree: Path) -> None:
    with loading(tree) as (loader, master):
        agree(loader, master, [*MEETINGS, *(cell[::-1] for cell in MEETINGS)])


def test_random_mixtures_in_random_order_are_what_hydra_makes_of_them(tree: Path) -> None:
    draw = random.Random(0)
    cells = []
    for _ in range(30):
        options = [draw.choice(some) for some in OPTIONS[:3] if draw.random() < 0.5]
        options += [draw.choice(OPTIONS[3])] if draw.random() < 0.2 else []
        # Half of them about one place, where order matters.
        place = draw.choice(["seed", "plain", "net", "solver", "chain", "whole", "far"])
        pool = EVERY if draw.random() < 0.5 else [text for text in EVERY if place in text]
        cell = options + draw.choices(pool, k=draw.randint(0, 4))
        draw.shuffle(cell)
        cells.append(cell)
    with loading(tree) as (loader, master):
        good, bad = agree(loader, master, cells)
    assert good > 5
    assert bad > 5


def test_an_override_of_hydra_itself_is_part_of_every_cell(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "more" / "net").mkdir(parents=True)
    (tmp_path / "more" / "seed").mkdir()
    (tmp_path / "more" / "net" / "own.yaml").write_text("width: 1\n")
    (tmp_path / "more" / "seed" / "group.yaml").write_text("now: a group\n")
    (tree / "follower" / "own.yaml").write_text("{}\n")
    folder = f"hydra.searchpath=[file://{tmp_path / 'more'}]"
    with loading(tree, folder) as (loader, master):
        cells = [["net=own", "net.width=3"], ["seed=3"], ["+seed=group"], ["hydra.job.name=x", "far=2"]]
        assert agree(loader, master, cells) == (3, 1)


# What somebody could sweep over in the real tree.
REAL = [
    ["dataset=digits", "dataset=mixture", "dataset=digits_bits", "dataset=fashion_mnist"],
    ["sampler=ddim", "sampler=restart", "sampler=adaptive", "sampler=dpmpp_2m"],
    ["sampler/spacing=karras", "sampler/spacing=time", "sampler/noise=none"],
    ["schedule=linear", "schedule=shifted", "schedule=ve"],
    ["diffuser=consistency", "diffuser=edm", "diffuser/target=x0"],
    ["guidance=cfg", "guidance=interval"],
    ["backbone=mlp", "backbone=unet"],
    ["experiment=toy", "experiment=fashion_mnist"],
    ["trainer=debug", "trainer=gpu", "trainer=ddp"],
    ["extractor=digits", "logger=csv", "optimizer=muon"],
    ["sampler.nfe=5", "sampler.nfe=50", "sampler={nfe:9}"],
    ["training.steps=20", "training.steps=2e3", "training.clip=null", "training.decay='linear'"],
    ["condition=label", "backbone.attention=[]", "backbone.attention=[0,-1]", "backbone.absent=1"],
    ["dataset.sigma_data=0.5", "dataset.shape=[3,4,4]", "dataset.shape.1=4"],
    ["seed=1", "evaluation.seed=7", "evaluation.samples=32", "+evaluation.note=x", "ema.decay=0.99"],
    ["paths.runs=elsewhere", "paths.data=${oc.env:HOME}", "guidance.scale=3", "schedule.size=9"],
]


def test_cells_of_the_real_tree_are_what_hydra_makes_of_them() -> None:
    draw = random.Random(1)
    cells = []
    for _ in range(12):
        cell = [draw.choice(some) for some in REAL if draw.random() < 0.3]
        draw.shuffle(cell)
        cells.append(cell)
    with loading(CONF) as (loader, master):
        good, _ = agree(loader, master, cells)
    assert good > 4


def test_an_evaluation_during_training_follows_the_extractor_and_has_a_sampler_of_its_own() -> None:
    axes = [
        ["validation=none", "validation=best"],
        ["extractor=digits", "extractor=inception"],
        ["evaluation.extractor.weights=a", "sampler.nfe=5"],
    ]
    own = ["validation=curve", "sampler@validation.sampler=ddim", "validation.every=9", "validation.sampler.nfe=7"]
    with loading(CONF) as (loader, master):
        good, _ = agree(loader, master, [*product(*axes), own])
    assert good == 7


def test_cells_about_a_users_own_pictures_are_what_hydra_makes_of_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            Image.new("L", (8, 8), 100 * number).save(tmp_path / folder / f"{number}.png")
    places = [f"dataset.path={tmp_path / folder}" for folder in ("a", "b")]
    axes = [["dataset=images"], ["extractor=efficientnet"], places, ["dataset.size=8", "dataset.size=16"]]
    with loading(CONF) as (loader, master):
        good, _ = agree(loader, master, [*product(*axes, ["seed=1", "seed=2"], ["sampler.nfe=${seed}"])])
    assert good == 8


def test_hydra_is_asked_once_per_choice_of_options_and_equal_parts_are_one_object(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = [
        ["net=small", "net=large"],
        ["solver=euler", "solver=heun"],
        [f"plain.number={i}" for i in range(5)],
        [f"plain.deep.b={i}" for i in range(5)],
        # Constant and not free, as paths.runs is: it must not make every cell dear.
        ["far=9"],
        [f"plain.flag={i}" for i in range(20)],
    ]
    with loading(tree) as (loader, master):
        asked: list[list[str]] = []
        original = loader.load_sweep_config
        monkeypatch.setattr(
            loader, "load_sweep_config", lambda master, cell: asked.append(cell) or original(master, cell)
        )
        cells = list(compose(loader, master, product(*axes)))
    assert len(cells) == 2000
    assert len(asked) == 4
    # Others follow plain.number and plain.deep, so they are never free; what they leave alone is shared all the same.
    assert len({id(cell.config["solver"]) for cell in cells}) == 2
    assert len({id(cell.config["net"]) for cell in cells}) == 2
    assert len({id(cell.choices) for cell in cells}) == 4


def test_a_cell_is_signed_as_if_it_stood_alone(tree: Path) -> None:
    axes = [
        ["net=small", "net=large"],
        ["seed=1", "seed=2"],
        ["+sampler.nfe=1", "+sampler.nfe=2"],
        ["~typed"],
        ["solver.nfe=3", "far=2"],
    ]
    signer = Signer()
    with loading(tree) as (loader, master):
        for cell in compose(loader, master, product(*axes)):
            alone = copy.deepcopy(cell.config)
            assert signer.sign(cell.config) == (fit_signature(alone), cell_signature(alone)) == by_the_rule(alone)


def by_the_rule(cfg: dict[str, Any]) -> tuple[str, str]:
    """The definition: 12 characters of the SHA-256 of the canonical JSON of what is left of the whole config."""
    return digest(cfg, NEUTRAL + INFERENCE), digest(cfg, NEUTRAL)


def digest(cfg: dict[str, Any], left_out: Sequence[str]) -> str:
    plain = canonical(cfg)
    for path, value in NEUTRAL_AT.items():
        drop(plain, path.split("."), value)
    for path in left_out:
        drop(plain, path.split("."))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_ANY = object()


def drop(tree: dict[str, Any], path: list[str], value: object = _ANY) -> None:
    """Remove what lies at a path, if it is `value`, and the mappings that are empty then."""
    if len(path) > 1 and isinstance(tree.get(path[0]), dict):
        drop(tree[path[0]], path[1:], value)
    known = value is _ANY or (path[0] in tree and json.dumps(tree[path[0]]) == json.dumps(value))
    if (len(path) == 1 and known) or tree.get(path[0]) == {}:
        tree.pop(path[0], None)


heads = sorted({path.partition(".")[0] for path in (*NEUTRAL, *INFERENCE)})
keys = st.sampled_from(sorted({key for path in NEUTRAL for key in path.split(".")})) | st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=4), max_leaves=10
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from(heads) | st.text(max_size=3), trees, max_size=6), max_size=5))
def test_one_signer_for_many_configs_follows_the_rule(configs: list[dict[str, Any]]) -> None:
    signer = Signer()
    merged = [{**first, **second} for first, second in pairwise(configs)]
    for cfg in configs + merged:
        assert signer.sign(cfg) == by_the_rule(cfg)


def test_one_object_under_two_keys_is_two_parts_of_a_signature() -> None:
    below = {"root": "here", "size": 1}
    cfg = {"other": below, "dataset": below, "sampler": below}
    assert Signer().sign(cfg) == by_the_rule(cfg)


class Recorder(Launcher):
    """Keeps what it is asked to launch; one job in three fails."""

    def __init__(self) -> None:
        self.batches: list[list[list[str]]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self.batches.append([list(cell) for cell in job_overrides])
        return [JobReturn(overrides=cell, status=JobStatus.COMPLETED) for cell in job_overrides]


def swept(sweeper: Sweeper, loader: ConfigLoader, config: DictConfig, arguments: list[str]) -> list[list[str]]:
    recorder = Recorder()
    sweeper.hydra_context = HydraContext(config_loader=loader, callbacks=Callbacks())
    sweeper.config = config
    sweeper.launcher = recorder
    sweeper.sweep(arguments)
    (batch,) = recorder.batches
    return batch


def test_the_grid_is_that_of_hydras_own_sweeper(tree: Path, tmp_path: Path) -> None:
    params = {"seed": "1,2", "net": "choice(small,large)", "plain.number": 3}
    with loading(tree, f"hydra.sweep.dir={tmp_path / 'sweep'}") as (loader, config):
        # Not before: when Hydra looks for plugins, it makes this class anew.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        for arguments in (
            ["seed=5,6,7"],
            ["plain.rate=range(1,3)", "net=small"],
            [],
            ["solver=glob(*)", "+new='a,b',c"],
        ):
            grid = swept(GridSweeper(params), loader, config, arguments)
            assert grid == swept(BasicSweeper(None, params), loader, config, arguments)
            assert (tmp_path / "sweep" / "multirun.yaml").read_text() == OmegaConf.to_yaml(config)
        assert swept(GridSweeper(), loader, config, ["seed=1"]) == [["seed=1"]]


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("seed=interval(0,1)", "seed=interval(0,1): a grid wants single values, as seed=1,2 or seed=range(1,3)"),
        ("net=glob(zz*)", "net=glob(zz*): there is nothing that this matches"),
        ("seed=[1", "seed=[1 has not as many [ as ]"),
    ],
)
def test_a_mistake_in_an_axis_is_one_line(tree: Path, tmp_path: Path, argument: str, says: str) -> None:
    folder = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    with loading(tree, folder) as (loader, config), pytest.raises(CompactHydraException) as raised:
        swept(GridSweeper(), loader, config, [argument])
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


def test_one_failed_job_stops_no_other_and_an_unknown_option_is_one_line(tree: Path, tmp_path: Path) -> None:
    app = shutil.copy(PROGRAMS / "hydra_app.py", tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, app, "-m", f"hydra.searchpath=[file://{CONF}]", "hydra/sweeper=grid", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    good = run("seed=0,1,2", "hydra.sweep.dir=out")
    assert good.returncode == 0, good.stderr
    assert "did 0" in good.stdout
    assert "did 2" in good.stdout
    assert (tmp_path / "out" / "multirun.yaml").exists()
    bad = run("net=smal,large")
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[0] == "net=smal does not exist: did you mean small? (--help lists all options)"
    assert "Traceback" not in bad.stderr
