"""What README.md and docs/ say can be typed, run and found: they are read by these tests, so they cannot rot."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate

from collections_made import as_folder, as_zip
from diffsweep import commands
from diffsweep.diffusion import CLEAN, GaussianMixture
from diffsweep.diffusion.schedules import Cosine
from diffsweep.runs.build import Components
from diffsweep.sweep.store.record import CHOICES

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
README = "\n".join(TEXTS.values())
OWN_FILES = (
    "--config-dir",
    "extractor=torchvision",
    "extractor=timm",
    "extractor=module",
    "mynets",
    "condition.edges.detector=hed",
    "clip_score.folder=",
    "dataset.path=clips/",
    "dataset.path=sounds/",
    "backbone.frozen=TRAINING",
    "pretrained=sd-folder/",
)
# A trainer is asked for its devices when it is built.
ON_CPU = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto"]
FLAGS = {"-m", "--help", "--cfg", "job"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    lines = re.findall(r"^\s*(python train\.py.*)$", README, re.MULTILINE)
    return sorted({*lines, *re.findall(r"`(python train\.py[^`]*)`", README)})


def cells(line: str) -> list[list[str]]:
    """The override lists that a command line stands for: one, or with -m one for each combination."""
    words = shlex.split(line, comments=True)[2:]
    overrides = OverridesParser.create().parse_overrides([word for word in words if word not in FLAGS])
    assert "-m" in words or not any(override.is_sweep_override() for override in overrides), f"-m is missing: {line}"
    choices = [
        # Of a range that is searched, its ends.
        [f"{override.get_key_element()}={end}" for end in ends(override.value())]
        if override.is_interval_sweep()
        else [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line or ""]
        for override in overrides
    ]
    return [list(cell) for cell in itertools.product(*choices)]


def ends(interval: Any) -> tuple[float, float]:
    return interval.start, interval.end


def config(overrides: list[str], conf: Path = CONF) -> Any:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("config", overrides=overrides)


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(
            r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
        )
    }


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_and_picture_is_there(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def make_targets() -> list[str]:
    code = "\n".join(re.findall(r"^ {4}.*$|`.*?`", README, re.MULTILINE))
    return sorted(set(re.findall(r"\bmake (\w+)\b", code)))


def table_rows(page: str) -> dict[str, set[str]]:
    rows = re.findall(r"^\| `([\w/]+)` \|.*\| ([^|]*) \|$", TEXTS[page], re.MULTILINE)
    return {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}


@pytest.fixture(scope="module")
def own_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collections of pictures that the pages name."""
    folder = tmp_path_factory.mktemp("own")
    as_folder(folder).rename(folder / "photos")
    as_zip(folder).rename(folder / "faces.zip")
    return folder


@pytest.mark.parametrize("line", command_lines())
def test_every_command_composes_and_builds(line: str, own_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(word in line for word in OWN_FILES):
        pytest.skip("names files of the user's own, as tests of each of them do")
    if "dataset=images" in line:
        monkeypatch.chdir(own_pictures)
    for overrides in cells(line):
        on_cpu = ON_CPU if any(word.startswith("trainer=gpu") for word in overrides) else []
        Components.of(config([*overrides, *on_cpu]))


def test_the_readme_can_be_read_at_once() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 150
    (picture,) = [number for number, line in enumerate(lines) if line.startswith("![")]
    assert picture < 15


def tool_lines() -> list[str]:
    """The lines of code blocks that are commands of `diffsweep`."""
    code = "\n".join([*blocks("sh"), *re.findall(r"^ {4}.*$", README, re.MULTILINE)])
    return sorted(set(re.findall(r"^ *(diffsweep [a-z].*)$", code, re.MULTILINE)))


@pytest.mark.parametrize("line", tool_lines())
def test_every_command_of_diffsweep_has_the_arguments_that_are_written(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "train":
        assert cells(line.replace("diffsweep", "python", 1))
        return
    done: list[str] = []

    def run(options: Any) -> int:
        """Does nothing."""
        done.append(words[0])
        return 0

    assert words[0] in commands.COMMANDS
    monkeypatch.setattr(importlib.import_module(f"diffsweep.commands.{words[0].replace('-', '_')}"), "run", run)
    assert commands.main(words) == 0
    assert done == [words[0]]


def test_commands_are_found_and_swept_as_hydra_sweeps_them() -> None:
    assert len(command_lines()) >= 8
    assert make_targets() == ["demo", "docs", "test"]
    sweep = cells("python train.py sampler=ddim,heun schedule=cosine,linear -m  # a comment")
    assert sweep == [[f"sampler={a}", f"schedule={b}"] for a in ("ddim", "heun") for b in ("cosine", "linear")]
    with pytest.raises(AssertionError, match="-m is missing"):
        cells("python train.py sampler=ddim,heun")


@pytest.mark.parametrize("target", make_targets())
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_five_nouns_with_all_their_options_in_order_and_then_their_parts() -> None:
    rows = table_rows("docs/options.md")
    for group, options in table_rows("README.md").items():
        assert options <= rows[group]
    assert list(rows)[:5] == list(CHOICES)
    assert len(rows) > 10
    for group, options in rows.items():
        assert options == {path.stem for path in (CONF / group).glob("*.yaml")}


def test_every_group_is_mentioned() -> None:
    for group in {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml")}:
        assert group.startswith(("hydra", "experiment/")) or f"`{group}`" in README


def test_python_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for sampler, value in (("ddim", 1.5), ("heun", 1.25)):
        cell = tmp_path / "runs" / "fits" / "f" / "cells" / sampler
        cell.mkdir(parents=True)
        result = {"sampler": sampler, "schedule": "cosine", "dataset": "digits", "nfe": 20, "samples": 500}
        result |= {"metric": "fd_digits", "fd_digits": value, "fit": "f", "cell": sampler, "status": "done"}
        (cell / "result.json").write_text(json.dumps(result))
    namespace: dict[str, Any] = {"__name__": "readme"}
    # An exported model is read in test_interop.
    found = [block for block in blocks("python") if "DenoiserPipeline" not in block]
    assert len(found) >= 3
    for block in found:
        exec(compile(block, "README.md", "exec", dont_inherit=True), namespace)
    said = capsys.readouterr().out
    assert re.search(r"heun +cosine +20 +1\.25\n.* ddim +cosine +20 +1\.50?\n", said)
    assert re.search(r"heun +0\.00? .*\n.* ddim +0\.25 ", said)
    assert namespace["loss"].item() > 0


def test_the_sampler_that_is_added_is_found_and_has_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("python") if "def aim(" in block]
    (yaml,) = [block for block in blocks("yaml") if "solvers.ralston" in block]
    (name,) = re.findall(r"`conf/sampler/(\w+)\.yaml`", README)
    module = ModuleType(f"diffsweep.diffusion.solvers.{name}")
    exec(compile(code, "README.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys.modules["diffsweep.diffusion.solvers"], name, module, raising=False)
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "sampler" / f"{name}.yaml").write_text(yaml)

    cfg = config([f"sampler={name}"], conf)
    Components.of(cfg)
    oracle = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5])
    noise = torch.special.ndtri((torch.arange(100, dtype=torch.float64) + 0.5) / 100)[:, None]
    errors, steps = [], [32, 64, 128]
    samplers = [instantiate(cfg.sampler, nfe=2 * n - 1) for n in steps]
    assert [sampler.steps for sampler in samplers] == steps
    for sampler in samplers:
        start = sampler.levels(Cosine())[0]
        exact = oracle.flow(noise * start.sigma, start, CLEAN)
        errors.append(float((sampler(oracle, noise, schedule=Cosine()) - exact).square().mean().sqrt()))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(samplers[0].solver.order, abs=0.3)
