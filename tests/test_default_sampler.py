"""The sampler that one gets without asking: its table is valid, stands in every config, and goes with all schedules."""

from __future__ import annotations

import importlib
import itertools
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.utils import instantiate

from diffsweep import recommended
from diffsweep.diffusion import Condition, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.sampler_check import check_sampler
from diffsweep.diffusion.schedules import VE, Cosine, Rectified
from diffsweep.diffusion.solvers import DPMpp2M, Multistep
from diffsweep.diffusion.spacing import Beta, FlowTime, LogSNR, Time
from diffsweep.sweep.plan import compose as sweep_compose
from diffsweep.sweep.store.signature import Signer

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
CALLS = (4, 5, 7, 10, 20, 50)
# But that of a model at hand, which is one of the others.
SCHEDULES = sorted({path.stem for path in (CONF / "schedule").glob("*.yaml")} - {"imported"})


def composed(*overrides: str) -> Mapping[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def sampler_of(nfe: int) -> Sampler:
    row = recommended.parameters()[nfe]
    return Sampler(Multistep("v", "share", row["order"]), FlowTime(row["a"], row["b"], row["shift"]), nfe)


@pytest.fixture(scope="module")
def schedules() -> dict[str, Schedule]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+schedule@{name}={name}" for name in SCHEDULES])
    return {name: instantiate(cfg[name]) for name in SCHEDULES}


def test_the_table_has_a_row_for_each_number_of_calls() -> None:
    table = recommended.parameters()
    assert tuple(table) == CALLS
    for row in table.values():
        assert list(row)[:4] == ["order", "a", "b", "shift"]
        assert row["order"] in (1, 2, 3, 4, 5)
        assert all(0.2 <= row[key] <= 2 for key in ("a", "b", "shift"))


def test_the_table_says_how_much_better_it_was_on_every_schedule() -> None:
    table = yaml.safe_load((ROOT / "src" / "diffsweep" / "recommended.yaml").read_text(encoding="utf-8"))
    assert sorted(table["schedules"]) == SCHEDULES
    for row in table["calls"].values():
        assert 1 <= row["regret"] < row["former"]
    for ratios in table["schedules"].values():
        assert tuple(ratios) == CALLS
        assert all(0 < ratio < 1 for ratio in ratios.values())


@pytest.mark.parametrize("nfe", CALLS)
def test_a_row_goes_with_every_schedule(nfe: int, schedules: dict[str, Schedule]) -> None:
    assert {name: found for name, made in schedules.items() if (found := check_sampler(sampler_of(nfe), made))} == {}


@pytest.mark.parametrize("nfe", CALLS)
def test_the_default_says_plainly_which_it_is(nfe: int) -> None:
    cfg = composed(f"sampler.nfe={nfe}")
    row, sampler = recommended.parameters()[nfe], cfg["sampler"]
    assert instantiate(sampler) == sampler_of(nfe)
    assert {key: sampler.spacing[key] for key in ("a", "b", "shift")} == {key: row[key] for key in ("a", "b", "shift")}


@pytest.mark.parametrize(("nfe", "row"), [(1, 4), (3, 4), (6, 7), (8, 7), (9, 10), (14, 10), (15, 20), (250, 50)])
def test_other_numbers_of_calls_take_the_nearest_row_in_ratio(nfe: int, row: int) -> None:
    order = recommended.parameter("order", nfe)
    assert order == recommended.parameters()[row]["order"]
    assert min(CALLS, key=lambda calls: abs(math.log(calls / nfe))) == row


@pytest.mark.parametrize("nfe", [0, -3, "many", None, 2.5])
def test_a_bad_number_of_calls_is_left_to_the_sampler(nfe: object) -> None:
    assert recommended.parameter("order", nfe) in (1, 2, 3, 4, 5)


def test_a_value_may_be_given_and_the_levels_go_with_other_solvers() -> None:
    sampler = composed("sampler.spacing.a=0.9", "sampler.solver.order=2", "sampler.nfe=10")["sampler"]
    assert (sampler.spacing.a, sampler.solver.order) == (0.9, 2)
    assert sampler.spacing.shift == recommended.parameters()[10]["shift"]
    unipc = composed("sampler=unipc", "sampler/spacing=recommended", "sampler.nfe=5")["sampler"]
    assert unipc.spacing.a == recommended.parameters()[5]["a"]


def test_a_sweep_over_calls_is_what_hydra_makes_of_it() -> None:
    words = [[f"sampler.nfe={nfe}", f"evaluation.seed={seed}"] for nfe in (4, 20, 50) for seed in (0, 1)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
        cells = list(sweep_compose.compose(loader, master, words))
    sign = Signer().sign
    assert [sign(cell.config) for cell in cells] == [sign(composed(*overrides)) for overrides in words]
    assert [cell.config["sampler"]["solver"]["order"] for cell in cells[::2]] == [
        recommended.parameters()[nfe]["order"] for nfe in (4, 20, 50)
    ]


@pytest.mark.parametrize("nfe", CALLS)
def test_it_is_nearer_to_the_exact_flow_than_the_former_default(nfe: int) -> None:
    mixture = GaussianMixture.of([0.2, 0.5, 0.3], [[-0.9], [0.1], [0.6]], [0.1, 0.2, 0.05])
    noise = torch.special.ndtri((torch.arange(100, dtype=torch.float64) + 0.5) / 100)[:, None]
    schedule = Cosine()
    start = schedule.level(1.0)

    def error(sampler: Sampler) -> float:
        exact = mixture.flow(noise * start.sigma, start, schedule.level(0.0))
        return float((sampler(mixture, noise, schedule=schedule) - exact).square().mean().sqrt())

    assert error(sampler_of(nfe)) < 0.75 * error(Sampler(DPMpp2M(), LogSNR(), nfe))


@pytest.fixture(scope="module")
def regret() -> ModuleType:
    """The benchmark that made the table, of which any machine can make other problems."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("sampler_regret")
    finally:
        sys.path.remove(folder)


def test_its_error_is_far_below_the_former_default_on_random_mixtures_on_every_schedule(
    regret: ModuleType, schedules: dict[str, Schedule]
) -> None:
    # One of each dimension from 1 to 256, of a seed that nothing was chosen by.
    problems = regret.Mixtures(seed=2, count=9)

    def error(sampler: Sampler, schedule: Schedule) -> float:
        def denoise(x: torch.Tensor, level: Level, condition: Condition | None = None) -> torch.Tensor:
            return problems.denoise(x, level)

        with torch.inference_mode():
            return problems.error(sampler(denoise, problems.unit, schedule=schedule))

    ratios = {
        (name, nfe): error(sampler_of(nfe), made) / error(Sampler(DPMpp2M(), LogSNR(), nfe), made)
        for name, made in schedules.items()
        for nfe in CALLS
    }
    # Of so few problems a single ratio says little; on all of them log_linear's is .53 to .92.
    assert {key: ratio for key, ratio in ratios.items() if ratio > (1.2 if key[0] == "log_linear" else 1)} == {}
    for name in schedules:
        assert math.prod(ratios[name, nfe] for nfe in CALLS) < 1


def test_flow_time_is_that_of_rectified_flow_on_every_schedule() -> None:
    straight = Rectified()
    levels = FlowTime()(straight, 8)
    assert [level.noise for level in levels] == pytest.approx([level.noise for level in Time()(straight, 8)])
    bent = FlowTime(0.6, 0.8)(straight, 8)
    assert [level.noise for level in bent] == pytest.approx([level.noise for level in Beta(0.6, 0.8)(straight, 8)])
    shifted = FlowTime(0.6, 0.8, shift=0.5)(straight, 8)
    assert [2 * level.noise for level in shifted[1:]] == pytest.approx([level.noise for level in bent[1:]])
    # On another schedule the same levels, but for those at the ends that it does not reach.
    cosine = FlowTime(0.6, 0.8)(Cosine(), 8)
    assert [level.noise for level in cosine[2:]] == pytest.approx([level.noise for level in bent[2:]], rel=0.2)
    assert cosine[0].noise == pytest.approx(Cosine().level(1.0).noise)


def test_flow_time_stays_within_a_narrow_schedule() -> None:
    for steps in (1, 2, 7, 50):
        noises = [level.noise for level in FlowTime(0.6, 0.6)(VE(0.02, 10.0), steps)]
        assert len(noises) == steps + 1
        assert noises[0] == pytest.approx(10)
        assert noises[-1] == 0
        assert all(above > below for above, below in itertools.pairwise(noises))
        assert steps == 1 or noises[-2] > 0.02


@pytest.mark.parametrize("key", ["a", "b", "shift"])
def test_flow_time_refuses_what_is_not_above_0(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}=0 must be above 0"):
        FlowTime(**{key: 0})


def test_the_page_has_the_numbers_of_the_table() -> None:
    page = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE)
    found = {int(calls): (int(order), float(a), float(b), float(shift)) for calls, order, a, b, shift in rows}
    table = recommended.parameters()
    assert found == {n: tuple(row[key] for key in ("order", "a", "b", "shift")) for n, row in table.items()}
