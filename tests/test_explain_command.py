"""`diffsweep explain`: every key has an answer, and docs/options.md is made of these answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import options_page
from diffsweep import commands
from diffsweep.report.key_text import key_lines
from diffsweep.sweep.plan.constructor import documentation
from diffsweep.sweep.plan.key_reference import READERS, KeyReference
from processes import loaded

ROOT = Path(__file__).parent.parent
REFERENCE = KeyReference([ROOT / "conf"])
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str) -> tuple[int, str, str]:
        code = commands.main(["explain", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_the_keys_are_those_of_all_files() -> None:
    assert len(REFERENCE.settings) > 300
    for key in ("seed", "training.steps", "sampler.spacing.rho", "trainer.loading.workers", "hydra.launcher.retries"):
        assert key in REFERENCE.settings


@pytest.mark.parametrize("name", REFERENCE.settings)
def test_every_key_of_every_option_has_an_answer(name: str) -> None:
    key = REFERENCE.find(name)
    for reader in {one.reader for one in key.settings}:
        said = [one.meaning for one in key.settings if one.reader == reader]
        # A place that options add to is explained where it is made.
        others = [one.meaning for one in key.settings]
        assert any(said) or any(others), (
            f"{name} of {reader}: give it a comment in the YAML, or a line in the docstring"
        )
    assert any(any(line.split()) for line in list(key_lines(key))[1:])


@pytest.mark.parametrize("group", REFERENCE.groups)
def test_every_group_has_an_answer(group: str, run: Call) -> None:
    code, out, err = run(group)
    assert (code, err) == (0, "")
    assert out.startswith(f"{group}\n    choice ")
    assert "of your own" not in out


@pytest.mark.parametrize("reader", sorted(set(READERS.values())))
def test_settings_classes_say_what_each_of_their_fields_is(reader: str) -> None:
    sentence, parameters = documentation(reader)
    assert sentence
    assert parameters
    assert [name for name, one in parameters.items() if not one.meaning] == []


def test_a_key_is_told_by_each_class_that_reads_it(run: Call) -> None:
    code, out, err = run("sampler.spacing.rho")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert "read by diffsweep.diffusion.spacing.Karras: Uniform in noise^(1/rho)" in words
    assert "Larger values put more steps at low noise, > 0. type float" in words
    assert "set to 7.0 by sampler/spacing=karras" in words
    assert "read by diffsweep.diffusion.spacing.LogSNR" in words
    assert max(map(len, out.splitlines())) <= 100


def test_a_key_of_every_run_has_its_default_and_what_changes_it(run: Call) -> None:
    words = " ".join(run("training.batch_size=32")[1].split())
    assert "default 64, of config.yaml Examples per step over all devices, >= 1. type int" in words
    assert "set to 64 by config.yaml 512 by experiment=toy" in words
    assert "example python train.py training.batch_size=512" in words


def test_a_value_that_an_option_sets_for_a_part_of_another_is_read_by_that_part() -> None:
    of_ddim = next(one for one in REFERENCE.find("sampler.noise.eta").settings if one.option == "sampler=ddim")
    assert (of_ddim.value, of_ddim.reader) == ("0.0", "diffsweep.diffusion.noise.Ancestral")


def test_a_place_names_the_keys_below_it(run: Call) -> None:
    words = " ".join(run("sampler.solver")[1].split())
    assert "made of it diffsweep.diffusion.solvers.heun.Heun options sampler=heun," in words
    assert "sampler.solver.quantity" in words


def test_options_of_ones_own_are_explained(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "mine.py").write_text(
        'class Petals:\n    """Petals.\n\n    Args:\n        curl: Of a petal, in degrees.\n    """\n\n'
        "    def __init__(self, curl: float) -> None: ...\n"
    )
    (tmp_path / "conf" / "dataset" / "petals.yaml").write_text("# P.\n_target_: mine.Petals\ncurl: 3\nhue: 1  # red\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = " ".join(run("dataset.curl", "--config-dir", str(tmp_path / "conf"))[1].split())
    assert "Of a petal, in degrees. type float read by mine.Petals: Petals. set to 3 by dataset=petals" in words
    assert "red" in run("dataset.hue", "--config-dir", str(tmp_path / "conf"))[1].lower()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sampler.spacing.roh", "there is no key sampler.spacing.roh: did you mean sampler.spacing.rho"),
        ("rho", "there is no key rho: did you mean sampler.spacing.rho or schedule.rho?"),
        ("zzz", "there is no key zzz; diffsweep options lists all choices"),
    ],
)
def test_a_slip_is_answered_with_the_nearest(word: str, said: str, run: Call) -> None:
    code, out, err = run(word)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_no_torch_is_loaded() -> None:
    names, _ = loaded("import", "diffsweep.commands.explain", "diffsweep.report.key_text")
    assert not names & {"torch", "hydra", "omegaconf"}


def test_the_page_of_options_is_that_of_today() -> None:
    shown = options_page.PAGE.read_text(encoding="utf-8")
    assert shown == options_page.page(), "options have changed: run `python docs/options_page.py`"
