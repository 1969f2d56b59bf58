"""A runs folder of somebody else is data: it runs no code, moves no cursor, and is no formula in a spreadsheet."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.text import Text

from diffsweep import commands, messages, results
from diffsweep.report import export
from diffsweep.runs.build import Components
from diffsweep.runs.stages import complete
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result
from finished_runs import CONF, composed, finish
from processes import PROGRAMS

POINTS = ["dataset=moons", "backbone=mlp", "backbone.width=16", "backbone.depth=1", "training.steps=20"]
POINTS += ["training.warmup=5", "evaluation.samples=64", "trainer.progress=false"]
POINTS += ["sampler=dpmpp_2m", "sampler.nfe=4"]

# Sets the title of the window, moves the cursor up, writes in the other direction.
HOSTILE = "a\x1b]0;owned\x07\x1b[1A\x9b2J\u202egnp.x"

SOURCE = Path(messages.__file__).parent

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = commands.main([*words, "--runs", str(tmp_path / "runs")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Runs whose every text is hostile: names, reasons, sweeps, overrides."""
    runs = tmp_path / "runs"
    fit = Fit(runs / "fits" / "f")
    fit.write_done({"fit": "f"})
    shared = {"fit": "f", "metric": "fd_digits", "samples": 500, "nfe": 5, "overrides": f"=cmd|{HOSTILE}"}
    for index, name in enumerate(("c", "d")):
        choices = dict.fromkeys(("sampler", "schedule", "dataset", "backbone", "diffuser"), f"{HOSTILE}{index}")
        own = {"cell": name, "fd_digits": 0.5 + index, "sweep": HOSTILE}
        fit.cell(name).write_result(Result.parse(shared | choices | own))
    lost = Fit(runs / "fits" / "lost")
    with Lease(lost.folder).acquire():
        lost.write_status("failed", reason=HOSTILE)
    plan = runs / "sweeps" / "night" / "plan.json"
    plan.parent.mkdir(parents=True)
    tasks = [
        {"num": 0, "overrides": [f"sampler={HOSTILE}"], "fit": fit, "cell": cell, "choices": "k", "config": {}}
        for fit, cell in (("f", "c"), ("lost", "e"))
    ]
    content = {"runs": str(runs), "command": HOSTILE, "created": "2026", "tasks": tasks, "parts": {"k": {}}}
    plan.write_text(json.dumps(content | {"warnings": [HOSTILE], "hydra": {}}))
    return runs


@pytest.mark.parametrize(
    "words",
    [
        ["results"],
        ["results", "--sort", "sampler"],
        ["results", "--format", "csv"],
        ["results", "--format", "json"],
        ["results", f"sampler={HOSTILE}"],
        ["results", HOSTILE],
        ["status"],
        ["status", "night"],
        ["gc", "--older-than", "0"],
        ["report", "night"],
        ["report", HOSTILE],
        ["sample", HOSTILE],
        ["resume", HOSTILE],
        ["cancel", HOSTILE],
        ["wandb-sync", "--offline", HOSTILE],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:40],
)
def test_no_command_prints_a_control_character(words: list[str], run: Call, hostile: Path) -> None:
    _, out, err = run(*words)
    assert out + err
    assert not [character for character in out + err if character in "\x1b\x07\x9b\u202e"]


def test_control_characters_are_shown_in_their_width() -> None:
    assert messages.printable("a\x1b[1A\tb\n\x7f\x9b\u202e") == "a\u241b[1A\tb\n\u2421\ufffd\ufffd"
    console = messages.console()
    with console.capture() as captured:
        console.print(Text("a\x1b[1Ab"))
    assert captured.get() == "a\u241b[1Ab\n"


def test_no_cell_of_a_csv_is_a_formula(run: Call, hostile: Path) -> None:
    texts = {"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "+experiment=toy": "'+experiment=toy", "-m": "'-m"}
    kept = {"-1.5e-3": "-1.5e-3", "+2": "+2", "a=b": "a=b", "": ""}
    written = export.text([Result.parse({f"={index}": text for index, text in enumerate(texts | kept)})], "csv")
    header, row = csv.reader(io.StringIO(written))
    assert header == [f"'={index}" for index in range(len(row))]
    assert row == list((texts | kept).values())
    assert "\n=" not in run("results", "--format", "csv")[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of one small training."""
    runs = tmp_path_factory.mktemp("project") / "runs"
    finish(runs, *POINTS)
    return runs


@pytest.fixture
def foreign(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its runs, which somebody else may have altered, in a project of the user's."""
    shutil.copytree(trained, tmp_path / "runs")
    (tmp_path / "conf").symlink_to(CONF)
    shutil.copy(PROGRAMS / "evil.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "runs"


def alter(runs: Path, key: str, value: object) -> None:
    """Write a value into every config.yaml of a runs folder."""
    for path in runs.rglob("config.yaml"):
        config = OmegaConf.load(path)
        OmegaConf.update(config, key, value, force_add=True)
        OmegaConf.save(config, path)


TARGETS = [
    "os.system",
    "torch.os.system",
    "torch.hub.load",
    "subprocess.Popen",
    "hydra.utils.get_method",
    "diffsweep.commands.main",
    "diffsweep.evaluation.pictures.grid",
    "diffsweep.files.write_atomic",
]


@pytest.mark.parametrize(
    ("key", "target"),
    [(key, "evil.Net") for key in ("sampler.solver", "dataset", "backbone", "schedule", "guidance")]
    + [("sampler.solver", target) for target in TARGETS],
)
def test_a_config_of_somebody_else_chooses_no_code(key: str, target: str, foreign: Path, run: Call) -> None:
    alter(foreign, f"{key}._target_", target)
    for words in (["sample", "last", "-n", "2"], ["sample", next(foreign.glob("fits/*")).name, "-n", "2"]):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert f"{key}._target_={target}" in err
        assert "--trust" in err
        assert len([line for line in err.splitlines() if not line.startswith("last: ")]) == 1
    with pytest.raises(ValueError, match=re.escape(target)):
        results.sample("last", 2, runs=foreign, show=False)
    if key in ("dataset", "backbone", "schedule"):
        with pytest.raises(ValueError, match=re.escape(target)):
            results.load_fit("last", foreign)


def test_a_config_of_somebody_else_reads_no_other_key(foreign: Path, run: Call) -> None:
    alter(foreign, "logger", {"evil": {"_target_": "evil.Net"}})
    alter(foreign, "sampler.solver", "${logger.evil}")
    code, _, err = run("sample", "last", "-n", "2")
    assert code == 2
    assert "sampler.solver=${logger.evil}" in err


def test_what_is_trusted_is_imported(foreign: Path, run: Call, tmp_path: Path) -> None:
    """By the user's word, or because the user's own configuration names it."""
    shutil.copy(PROGRAMS / "ralston.py", foreign.parent)
    alter(foreign, "sampler.solver._target_", "ralston.Ralston")
    assert run("sample", "last", "-n", "2")[0] == 2
    assert run("sample", "last", "-n", "2", "--trust", "--out", "a")[0] == 0
    (tmp_path / "mine" / "sampler").mkdir(parents=True)
    (tmp_path / "mine" / "sampler" / "mine.yaml").write_text("solver:\n  _target_: ralston.Ralston\n")
    assert run("sample", "last", "-n", "2", "--config-dir", str(tmp_path / "mine"), "--out", "b")[0] == 0
    assert results.sample("last", 2, runs=foreign, show=False, trust=True).shape == (2, 2)
    assert run("sample", "last", "-n", "2")[0] == 2, "the next call trusts no more than the first"


def test_a_teacher_of_somebody_else_chooses_no_code(foreign: Path) -> None:
    alter(foreign, "backbone._target_", "evil.Net")
    fit = next(foreign.glob("fits/*")).name
    cfg, _ = composed(foreign, *POINTS, "diffuser=consistency_distillation", f"diffuser.teacher={fit}")
    with pytest.raises(ValueError, match=r"backbone\._target_=evil\.Net"):
        Components.of(cfg)


class Payload:
    """Makes a file when it is loaded as a pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_no_command_loads_a_pickle_of_somebody_else(
    foreign: Path, run: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "loaded"
    (config,) = foreign.glob("fits/*/config.yaml")
    names = ["last.ckpt", "ema.safetensors", "best.ckpt"]
    (config.parent / "checkpoints").mkdir(exist_ok=True)
    payload = pickle.dumps(Payload(marker))
    for name in names:
        (config.parent / "checkpoints" / name).write_bytes(payload)
    for file in [*foreign.rglob("*.json"), *foreign.rglob("*.jsonl"), *foreign.rglob("*.safetensors")]:
        before = file.read_bytes()
        file.write_bytes(payload)
        for words in (["status"], ["results"], ["gc"], ["report", "sampler=ddim"], ["sample", "last"]):
            assert run(*words)[0] in (0, 1, 2), words
        assert run("wandb-sync", "--offline")[0] in (0, 1, 2)
        if file.suffix != ".safetensors":
            file.write_bytes(before)
    # Where a training goes on, its checkpoint is read: without unpickling anything.
    cfg, unfinished = composed(foreign, *POINTS)
    unfinished.fit.done_file.unlink()
    (unfinished.fit.checkpoints / "last.ckpt").write_bytes(payload)
    with contextlib.suppress(Exception):
        complete(cfg, unfinished, [])
    assert not marker.exists()
    pickle.loads(payload)
    assert marker.exists(), "the payload would have been noticed"


def test_no_code_of_ours_unpickles() -> None:
    """Of torch's and NumPy's files either: `weights_only=True` everywhere, and no `allow_pickle`."""
    modules = ("pickle", "cloudpickle", "dill", "marshal", "joblib")
    unpickling = {f"{module}.{name}" for module in modules for name in ("load", "loads", "Unpickler")} | {"shelve.open"}
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                found += [
                    f"{path}:{node.lineno}" for alias in node.names if f"{node.module}.{alias.name}" in unpickling
                ]
            if not isinstance(node, ast.Call):
                continue
            name, keywords = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            if name in unpickling or (name == "torch.load" and keywords.get("weights_only") != "True"):
                found.append(f"{path}:{node.lineno}")
            if keywords.get("allow_pickle", "False") != "False":
                found.append(f"{path}:{node.lineno}")
    assert not found


def test_a_report_asks_nobody_for_anything(foreign: Path, run: Call, tmp_path: Path) -> None:
    assert run("report", "dataset=moons", "--out", str(tmp_path / "page.html"))[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"""<(?:script|img|link|iframe)[^>]*\s(?:src|href)=["']?(?:https?:)?//""", page) == []
    assert "<script" in page
