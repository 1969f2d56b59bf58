"""`diffsweep options`: every choice with what it is, from the YAML alone, with the options of a user's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from diffsweep import commands
from diffsweep.sweep.plan.option_files import DECIDES
from processes import loaded

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str) -> tuple[int, str, str]:
        try:
            code = commands.main(["options", *words])
        except SystemExit as stop:
            code = int(str(stop.code))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_all_groups_are_listed_with_what_they_decide_and_their_default(run: Call) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    groups = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml")} - {"hydra/help"}
    shown = dict(re.findall(r"^([\w/]+): (.*)$", out, re.MULTILINE))
    assert set(shown) == {group for group in groups if not group.startswith("experiment/")} | {"sweeps"}
    assert shown["schedule"].endswith("(default: cosine)")
    assert shown["extractor"].endswith("(default: that of the dataset)")
    assert shown["hydra/launcher"].endswith("(default: local)")
    assert "of your own" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_an_option_is_shown_with_its_sentence_and_the_defaults_of_its_keys(run: Call) -> None:
    code, out, err = run("sampler")
    assert (code, err) == (0, "")
    every = {path.stem for path in (CONF / "sampler").glob("*.yaml")}
    assert set(re.findall(r"^sampler=(\w+)", out, re.MULTILINE)) == every
    words = " ".join(out.split())
    assert "sampler=heun EDM's deterministic Heun (arXiv 2206.00364)" in words
    assert " (the default) " in words
    assert "sampler/spacing=karras sampler/noise=none sampler.solver.quantity=eps sampler.nfe=20" in words


@pytest.mark.parametrize("group", DECIDES)
def test_every_group_can_be_asked_for(group: str, run: Call) -> None:
    code, out, err = run(group)
    assert (code, err) == (0, "")
    assert f"{group}=" in out


def test_what_is_said_of_a_group_is_what_the_docs_say() -> None:
    rows = re.findall(r"^\| `([\w/]+)` \| (.*?) \|", (ROOT / "docs" / "options.md").read_text(), re.MULTILINE)
    assert rows
    assert {group: DECIDES[group] for group, _ in rows} == dict(rows)


def test_one_option_is_shown_with_its_comments(run: Call) -> None:
    code, out, err = run("dataset=images")
    assert (code, err) == (0, "")
    assert out.startswith(f"# {CONF / 'dataset' / 'images.yaml'}\n")
    assert yaml.safe_load(out) == yaml.safe_load((CONF / "dataset" / "images.yaml").read_text())
    assert "# pixels a side; null if all pictures have one size already" in out


def test_options_of_ones_own_are_among_them_but_hide_none(run: Call, tmp_path: Path) -> None:
    for name, text in (
        ("dataset/mine.yaml", "# My petals.\n# licence: none\nsize: 3\n"),
        ("texture/rough.yaml", "# R.\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "dataset" / "digits.yaml").write_text("# Other digits.\nshape: [1, 9, 9]\n")
    code, out, _ = run("dataset", "--config-dir", str(tmp_path))
    words = " ".join(out.split())
    assert code == 0
    assert "dataset=mine My petals. licence: none dataset.size=3" in words
    # As Hydra has it: an option that the package has as well stays the package's.
    assert "Other digits" not in words
    assert "dataset.shape=[1,8,8]" in words
    assert "texture: of your own" in run("--config-dir", str(tmp_path))[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["samplr"], "there is no group samplr: did you mean sampler or "),
        (["spacing"], "there is no group spacing: did you mean sampler/spacing?"),
        (["sampler=huen"], "sampler=huen does not exist: did you mean heun?"),
        (["--config-dir", "nowhere"], "--config-dir nowhere is no folder"),
    ],
)
def test_a_slip_is_answered_with_the_nearest(words: list[str], said: str, run: Call) -> None:
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_no_torch_is_loaded() -> None:
    names, _ = loaded("import", "diffsweep.commands.options", "diffsweep.report.option_list")
    assert not names & {"torch", "hydra", "omegaconf"}
