"""A user's mistake: one line that names the config's own path, whatever is wrong and however deep it lies."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from diffsweep.diffusion.sampler import Sampler
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Karras
from diffsweep.mistakes import BadValue, below, nearest, one_line, one_of, share, whole
from diffsweep.runs.instantiate import make
from processes import loaded

CONF = Path(__file__).parent.parent / "conf"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        # Ranges, in the constructor's words.
        (["sampler.nfe=0"], "sampler.nfe=0 must be a whole number, 1 or more"),
        (
            ["validation=curve", "validation.sampler.nfe=0"],
            "validation.sampler.nfe=0 must be a whole number, 1",
        ),
        (["diffuser=consistency", "diffuser.spacing.rho=0"], "diffuser.spacing.rho=0 must be above 0"),
        (["dataset=digits_bits", "dataset.inner.sigma_data=-1"], "dataset.inner.sigma_data=-1 must be above 0"),
        (
            ["sampler=heun", "sampler.solver.quantity=epss"],
            "sampler.solver.quantity=epss is unknown: did you mean eps",
        ),
        # Types, by the annotation.
        (["sampler.nfe=abc"], "sampler.nfe=abc must be a whole number"),
        (["sampler.nfe=2.5"], "sampler.nfe=2.5 must be a whole number"),
        (["sampler.nfe=true"], "sampler.nfe=true must be a whole number"),
        (["sampler.nfe=null"], "sampler.nfe=null must be a whole number"),
        (["sampler.nfe=[1,2]"], "sampler.nfe=[1, 2] must be a whole number"),
        (["sampler.solver=3"], "sampler.solver=3 must be an object, which has a _target_"),
        (["backbone.multipliers=3"], "backbone.multipliers=3 must be a list"),
        (["backbone.multipliers=[1,a]"], "backbone.multipliers[1]=a must be a whole number"),
        (["schedule.logsnr_max=hot"], "schedule.logsnr_max=hot must be a number"),
        (["dataset=cifar10", "dataset.download=3"], "dataset.download=3 must be true or false"),
        (["optimizer.lr=true"], "optimizer.lr=true must be a number"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9] must be a list of 2"),
        # Names.
        (["+sampler.nef=3"], "sampler has no setting nef: did you mean nfe?"),
        (["~sampler.solver"], "sampler.solver is missing"),
        (
            ["sampler.solver._target_=diffsweep.nowhere.Foo"],
            "sampler.solver._target_=diffsweep.nowhere.Foo cannot be loaded: ModuleNotFoundError",
        ),
    ],
)
def test_a_part_that_cannot_be_built_is_named_by_its_path(overrides: list[str], says: str) -> None:
    cfg = composed(*overrides)
    says = re.escape(says)
    with pytest.raises(ValueError, match=f"^{says}"):
        make(cfg, overrides[-1].strip("+~").partition(".")[0])


def test_a_constructor_names_its_own_parameter() -> None:
    with pytest.raises(BadValue, match=r"^nfe=0 must be a whole number, 1 or more$"):
        Sampler(Euler(), Karras(), nfe=0)


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    nfe = make(composed("sampler.nfe=1e1"), "sampler").nfe
    assert nfe == 10
    assert isinstance(nfe, int)


def test_nothing_is_made_of_null() -> None:
    assert make(OmegaConf.create({"validation": None}), "validation") is None


def test_a_bad_value_knows_its_place() -> None:
    with pytest.raises(BadValue) as raised, below("sampler"), below("spacing"):
        share("last", 1.5, zero=False, one=False)
    error = raised.value
    assert str(error) == "sampler.spacing.last=1.5 must be above 0 and below 1"
    assert (error.name, error.value) == ("sampler.spacing.last", 1.5)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("value", [True, 0, 1.0, "3", None, 11])
def test_what_is_no_whole_number_within_its_bounds_is_refused(value: object) -> None:
    with pytest.raises(BadValue, match="must be a whole number from 1 to 10"):
        whole("k", value, 1, 10)
    assert whole("k", 3, 1, 10) == 3


def test_a_long_value_is_cut() -> None:
    with pytest.raises(BadValue) as raised:
        one_of("mode", "9" * 400, ("online", "offline"))
    assert len(str(raised.value)) < 250


def test_nearest_names_come_from_anywhere_in_the_config() -> None:
    keys = ["optimizer.lr", "training.steps", "trainer.limit", "sampler.nfe"]
    assert nearest("lr", keys) == ["optimizer.lr"]
    assert nearest("training.stpes", keys)[0] == "training.steps"
    assert nearest("zzz", keys) == []


def test_what_is_no_mistake_keeps_its_type() -> None:
    assert one_line(RuntimeError("two\nlines")) == "RuntimeError: two lines"
    assert one_line(ValueError("two\nlines")) == "two lines"


def test_mistakes_load_nothing_heavy() -> None:
    names, _ = loaded("import", "diffsweep.mistakes")
    assert not names & {"torch", "hydra", "omegaconf", "numpy"}
