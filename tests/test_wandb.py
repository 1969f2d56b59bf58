"""Weights & Biases as a team sees it: what a loopback server really received, what offline files really hold."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import forked_runs
import processes
from diffsweep import commands
from diffsweep.sweep.store.record import AutoencoderRecord, Fit, Metrics, Run, read_metrics
from diffsweep.sweep.store.result import Result
from diffsweep.tracking import record_values, wandb_folder, wandb_run, wandb_server, wandb_summary
from diffsweep.tracking.record_values import digest, pictures
from diffsweep.tracking.run_info import RunInfo, flat_config
from diffsweep.tracking.wandb_run import WandbRun
from diffsweep.tracking.wandb_settings import WandbSettings
from prerequisites import need_module
from tiny import TINY
from wandb_server import ENTITY, KEY, Server, bare

ROOT = Path(__file__).parent.parent
SETTINGS = WandbSettings("diffsweep", None, "online")
CHOICES = {"diffuser": "v", "sampler": "ddim", "schedule": "cosine", "backbone": "unet", "dataset": "digits"}
CONFIG = {
    "diffuser": {"_target_": "diffsweep.diffusion.Diffuser", "times": {"_target_": "a.b.Uniform", "low": 0.1}},
    "sampler": {"nfe": 20, "solver": {"_target_": "diffsweep.diffusion.solvers.Heun"}},
    "training": {"batch_size": 8, "steps": 50},
    "logger": {"wandb": {"project": "diffsweep", "entity": None, "mode": "online", "artifact": True}},
    "paths": {"runs": "runs"},
    "hydra": {"job": "x"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server and, in this process, one wandb service for all tests of this file."""
    before = dict(os.environ)
    with Server() as running:
        # Read once by the client, when it is first used.
        logged = running.environment() | {"WANDB_SILENT": "true"}
        os.environ.clear()
        os.environ.update(logged)
        yield running
        if "wandb" in sys.modules:
            import wandb

            wandb.teardown()
    os.environ.clear()
    os.environ.update(before)


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """As a training logs them, every tenth step; the loss is least in the middle."""
    return [
        {
            "step": step,
            "loss": abs(step - 29) / 10 + 1,
            "lr": 0.1,
            "gradient_norm": float(step),
            "images_per_second": 5.0,
        }
        for step in range(first + 9, count, 10)
    ]


def trained(runs: Path, name: str, steps: int = 50, *, done: bool = True) -> Fit:
    """The record of a fit, as a training would leave it."""
    fit = Fit(runs / "fits" / name)
    fit.write_config(CONFIG)
    with Metrics(fit.metrics_file) as metrics:
        for row in rows(steps):
            metrics.write(row["step"], **{key: value for key, value in row.items() if key != "step"})
    (fit.folder / record_values.PICTURES).mkdir()
    Image.new("L", (8, 8), 99).save(fit.folder / record_values.PICTURES / "00000020.png")
    fit.checkpoints.mkdir()
    (fit.checkpoints / "ema.safetensors").write_bytes(b"weights")
    fit.write_status("running", step=steps)
    if done:
        fit.write_done({"fit": name, "steps": steps, "seconds": 1.5, "loss": 3.0, "parameters": 7})
    return fit


def evaluated(fit: Fit, name: str, value: float, nfe: int = 20, sampler: str = "ddim") -> Result:
    """The record of a cell, likewise; returns its result."""
    cell = fit.cell(name)
    cell.write_config(CONFIG)
    Image.new("L", (16, 16), int(name, 16) % 256).save(cell.samples_file)
    without = " ".join(str(value + 0.01 * (k % 3)) for k in range(20))
    measured = {"fd_digits": value, "fd_digits_low": value - 0.1, "fd_digits_high": value + 0.1}
    made: dict[str, Any] = {
        "cell": name,
        "fit": fit.signature,
        **CHOICES,
        "sampler": sampler,
        "metric": "fd_digits",
        **measured,
        "fd_digits_floor": 0.3,
        "fd_digits_jackknife": without,
        "nfe": nfe,
        "samples": 64,
        "extractor": "digits",
        "sample_seconds": nfe / 10,
        "sample_seed": 0,
        "overrides": f"sampler={sampler} sampler.nfe={nfe}",
        "sweep": "night",
    }
    cell.write_result(Result.parse(made))
    result = cell.result()
    assert result is not None
    return result


def info(fit: Fit, group: str | None = "night") -> RunInfo:
    return RunInfo.of("fit", fit.folder, CONFIG, CHOICES, group)


def log(fit: Fit, logged: list[dict[str, Any]], settings: WandbSettings = SETTINGS) -> WandbRun:
    """An open W&B run with rows logged, as a training does it."""
    opened = WandbRun.open(info(fit), settings)
    assert opened is not None
    for row in logged:
        opened.log_row({key: value for key, value in row.items() if key != "step"}, row["step"])
    return opened


def sync(runs: Path, *words: str) -> int:
    return commands.main(["wandb-sync", "--runs", str(runs), *words])


def inspect(folder: Path, *words: str) -> list[dict[str, Any]]:
    """What `wandb leet inspect` reads back from an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *words, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=bare(), timeout=120)
    assert done.returncode == 0, done.stderr
    if words:
        return [json.loads(done.stdout)]
    return [json.loads(line) for line in done.stdout.splitlines()]


def table(server: Server, name: str) -> list[dict[str, Any]]:
    """The rows of the table that a run has logged last under a name."""
    *_, last = [one["files"] for one in server.artifacts.values() if one["name"] == name]
    (content,) = [json.loads(content) for file, content in last.items() if file.endswith(".table.json")]
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def test_a_config_is_flat_and_begins_with_the_five_groups() -> None:
    shown = flat_config(CONFIG, CHOICES)
    assert list(shown)[:5] == ["diffuser", "sampler", "schedule", "backbone", "dataset"]
    assert list(shown.values())[:5] == ["v", "ddim", "cosine", "unet", "digits"]
    assert shown["sampler/nfe"] == 20
    assert shown["sampler/solver"] == "Heun"
    assert shown["diffuser/times/low"] == 0.1
    assert not [key for key in shown if key.startswith(("logger", "paths", "hydra"))]
    assert not [value for value in shown.values() if isinstance(value, dict)]
    # A fit has no sampler: whichever was asked for first is none of its settings.
    assert not [key for key in RunInfo.of("fit", Path("f"), CONFIG, CHOICES, None).config if key.startswith("sampler")]


@pytest.mark.parametrize("key", [KEY, "wandb_v1_" + "x" * 40])
def test_a_key_is_never_said(key: str) -> None:
    assert key not in wandb_server.one_line(ValueError(f"401 for {key}"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user who has never used wandb, in a process that has not either: a folder for netrc and for its settings."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    # The client reads its settings once.
    wandb.teardown()
    for name, value in (bare() | {"NETRC": f"{tmp_path}/netrc", "WANDB_CONFIG_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wandb_server, "_unusable", {})
    yield tmp_path
    wandb.teardown()


def test_without_a_key_a_run_is_offline_and_a_sync_says_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no key for" in str(wandb_server.reachable())
    assert wandb_server.offline(WandbSettings())[0]
    assert sync(home) == 2
    assert "there is no key for" in capsys.readouterr().err


def test_the_server_that_a_user_has_logged_in_to_is_asked(server: Server, home: Path) -> None:
    import wandb

    # As `wandb login --host` leaves them.
    address = server.url.removeprefix("http://")
    (home / "settings").write_text(f"[default]\nbase_url = {server.url}\n")
    (home / "netrc").write_text(f"machine {address}\n  login user\n  password {KEY}\n")
    assert wandb_server.reachable() is None
    assert wandb_server.server_and_project(WandbSettings("p", "e")) == f"{address} e p"
    # Nobody listens on this port: it is refused at once, and no client is made to wait for it.
    (home / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    (home / "netrc").write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    wandb.teardown()
    assert wandb_server.reachable() == "127.0.0.1 does not answer"
    # As `wandb offline` leaves it: it wins over a server that could be asked, and needs no reason.
    (home / "settings").write_text(f"[default]\nbase_url = {server.url}\nmode = offline\n")
    wandb.teardown()
    assert wandb_server.offline(WandbSettings()) == (True, None)


def test_a_key_that_is_refused_leaves_its_runs_offline_and_is_tried_once(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "f" * 40
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", wrong)
    fit, other = trained(home, "aaaaaaaaaa08"), trained(home, "aaaaaaaaaa09")
    assert log(fit, rows(50), WandbSettings()).close()
    asked = len(server.asked)
    assert log(other, rows(50), WandbSettings()).close()
    assert len(server.asked) == asked
    assert len(offline_runs(other.folder)) == 1
    (folder,) = offline_runs(fit.folder)
    kept = inspect(folder)
    assert len([record for record in kept if record["type"] == "history"]) == 5
    assert wrong not in json.dumps(kept)
    said = capsys.readouterr().err
    assert said.count("401") == 2
    assert wrong not in said


def test_a_password_in_an_address_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://user:secret@wandb.local:8080/team")
    assert wandb_server.server_and_project(WandbSettings("p", "e")) == "wandb.local:8080 e p"


def test_where_wandb_is_disabled_nothing_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbRun.open(RunInfo("fit", "a", home, "a", None, {}), WandbSettings()) is None
    assert list(home.iterdir()) == []
    assert capsys.readouterr().err == ""
    # Somebody who asks for it hears why.
    assert WandbRun.open(RunInfo("fit", "a", home, "a", None, {}), SETTINGS) is None
    assert "W&B is disabled" in capsys.readouterr().err


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="logger mode=cloud is unknown: choose one of auto, online, offline"):
        WandbSettings(mode="cloud")


@pytest.mark.parametrize("project", ["", "team/project", "p" * 129, 2024])
def test_a_project_that_wandb_would_refuse_is_refused_at_once(project: Any) -> None:
    with pytest.raises(ValueError, match=f"logger.wandb.project={project} names no W&B project: use text of 1 to 128"):
        WandbSettings(project)


def test_a_run_that_is_killed_goes_on_in_the_same_run_without_doubled_or_lost_steps(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa01")
    first = log(fit, rows(30))
    # Interrupted, as a preempted job is; its checkpoint was that of step 20, and it does step 29 again.
    assert first.close(failed=True, preempted=True)
    run = server.runs["aaaaaaaaaa01"]
    assert (run.finished, run.preempting, run.group, run.job_type) == (1, True, "night", "fit")
    second = log(fit, rows(50))
    second.log_training(fit.result() or {}, rows(50), fit.checkpoints / "ema.safetensors")
    assert second.close()
    assert [step for step, _ in run.series("loss")] == [9, 19, 29, 39, 49]
    assert [value for _, value in run.series("loss")] == [row["loss"] for row in rows(50)]
    assert run.series("step") == [(step, step + 1) for step in (9, 19, 29, 39, 49)]
    assert run.series("images") == [(step, 8 * (step + 1)) for step in (9, 19, 29, 39, 49)]
    assert [step for step, _ in run.series("grid")] == [19]
    # The least loss was before the interruption: the client alone would have forgotten it.
    assert run.summary["loss"] == {"min": 1.0, "last": 3.0}
    assert run.summary["gradient_norm"] == {"max": 49, "last": 49}
    assert (run.finished, run.finishes) == (0, 2)
    assert run.summary["record"] == digest(fit.result() or {})
    assert run.values["schedule"] == "cosine"
    assert run.values["training/steps"] == 50
    assert run.display_name == "v cosine unet digits"
    picture = (fit.folder / record_values.PICTURES / "00000020.png").read_bytes()
    assert [content for name, content in run.files.items() if name.startswith("media/images/grid")] == [picture]
    weights = [one for one in server.artifacts.values() if one["name"] == "weights-aaaaaaaaaa01"]
    assert [one["files"] for one in weights] == [{"ema.safetensors": b"weights"}]
    assert weights[0]["state"] == "COMMITTED"
    assert server.unknown == []
    assert KEY not in json.dumps([run.config, run.summary, run.log])
    said = capsys.readouterr()
    assert KEY not in said.err + said.out


def test_the_least_of_a_metric_is_right_however_often_a_training_is_interrupted(server: Server, tmp_path: Path) -> None:
    from diffsweep.tracking import loggers

    fit = trained(tmp_path, "aaaaaaaaaa10", done=False)
    assert log(fit, rows(30)).close(failed=True, preempted=True)
    again = loggers.WandbLogger(log(fit, rows(50)), info(fit), WandbSettings())
    loggers.close(again, failed=True, preempted=True)
    # The least was in the first part, of which the second client has heard nothing.
    assert server.runs["aaaaaaaaaa10"].summary["loss"] == {"min": 1.0, "last": 3.0}


def test_summaries_of_sweeps_with_names_that_wandb_does_not_allow_stay_apart() -> None:
    names = [wandb_summary.summary_id(sweep) for sweep in ("a.b", "a b", "a-b", "n" * 100 + "1", "n" * 100 + "2")]
    assert len(set(names)) == 5
    assert max(map(len, names)) <= 64
    assert names[2] == "summary-a-b"


def test_a_cell_shows_its_picture_and_a_row_of_a_table(server: Server, tmp_path: Path) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa02")
    result = evaluated(fit, "cccccccccc02", 0.5)
    cell = fit.cell("cccccccccc02")
    # W&B refuses names of more than 128 characters.
    opened = WandbRun.open(RunInfo.of("cell", cell.folder, CONFIG, CHOICES, "night" * 40), SETTINGS)
    assert opened is not None
    opened.log_result(result, cell.samples_file)
    assert opened.close()
    run = server.runs["cccccccccc02"]
    assert (run.job_type, run.group, run.finished) == ("cell", ("night" * 40)[:128], 0)
    assert {key: run.summary[key] for key in record_values.numbers(result.values)} == record_values.numbers(
        result.values
    )
    assert run.summary["grid"]["_type"] == "image-file"
    assert run.values["extractor"] == "digits"
    assert run.values["sampler"] == "ddim"
    assert run.values["fit"] == "aaaaaaaaaa02"
    assert cell.samples_file.read_bytes() in run.files.values()
    (shown,) = table(server, "run-cccccccccc02-cell")
    assert shown["sampler"] == "ddim"
    assert shown["fd_digits"] == 0.5
    assert shown["samples"]["_type"] == "image-file"


def test_an_offline_run_reads_back_and_wandb_sync_sends_it_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa03")
    offline = WandbSettings(mode="offline")
    assert log(fit, rows(30), offline).close(failed=True)
    second = log(fit, rows(50), offline)
    second.log_training(fit.result() or {}, rows(50))
    assert second.close()
    older, newer = offline_runs(fit.folder)
    assert second.sync_command == f"wandb sync {newer}"
    records = inspect(newer)
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [(row["step"] - 1, row["loss"]) for row in history] == [(row["step"], row["loss"]) for row in rows(50)]
    shown = {one["metric"]["name"]: one["metric"] for one in records if one["type"] == "metric"}
    assert shown["loss"]["summary"] == {"min": True, "last": True}
    assert shown["lr"]["step_metric"] == shown["gradient_norm"]["step_metric"] == "step"
    assert KEY not in json.dumps(records)
    (summary,) = inspect(newer, "--summary")
    assert (summary["state"], summary["exit_code"], summary["run_id"]) == ("finished", 0, "aaaaaaaaaa03")
    assert summary["summary"]["loss"] == {"min": 1, "last": 3}
    assert summary["config"]["schedule"] == "cosine"
    # `wandb sync` of all that lies there sends the newer one only, for it holds all of the older.
    command = [sys.executable, "-m", "wandb", "sync", "--yes", str(older), str(newer)]
    done = subprocess.run(command, capture_output=True, text=True, env=server.environment(), timeout=120)
    assert done.returncode == 0, done.stderr
    run = server.runs["aaaaaaaaaa03"]
    assert [step for step, _ in run.series("loss")] == [9, 19, 29, 39, 49]
    assert (run.finished, run.job_type, run.group) == (0, "fit", "night")
    assert run.summary["loss"] == {"min": 1, "last": 3}
    # And what was sent by hand is not sent again.
    upserts = run.upserts
    assert sync(tmp_path, "aaaaaaaaaa03") == 0
    assert capsys.readouterr().out == "fit   aaaaaaaaaa03  v cosine unet digits: complete already\n"
    assert [step for step, _ in run.series("loss")] == [9, 19, 29, 39, 49]
    assert run.upserts > upserts
    assert run.group == "night"


def test_what_a_killed_offline_run_has_lost_is_made_again_from_our_own_files(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa04", done=False)
    done = processes.run("killed_wandb_run", fit.folder, env=bare())
    assert done.returncode == -signal.SIGKILL, done.stderr
    (killed,) = offline_runs(fit.folder)
    kept = [record["type"] for record in inspect(killed)]
    assert "exit" not in kept
    assert kept.count("history") < 5, "nothing was lost, so nothing is tested"
    assert sync(tmp_path, "--online") == 0
    run = server.runs["aaaaaaaaaa04"]
    logged = [(row["step"], row["loss"]) for row in read_metrics(fit.metrics_file)]
    assert run.series("loss") == logged
    assert len(logged) == 5
    # It is not done, so neither is its run; and it is done later.
    assert (run.finished, run.preempting) == (1, True)
    assert list(killed.glob("*.synced")), "wandb sync must leave alone what has been logged"
    fit.write_done({"fit": fit.signature, "steps": 50, "seconds": 1.5})
    result = evaluated(fit, "cccccccccc04", 0.5)
    capsys.readouterr()
    assert sync(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fit   aaaaaaaaaa04  v cosine unet digits: 0 of 5 rows logged",
        "cell  cccccccccc04  v ddim cosine unet digits: logged",
    ]
    assert run.finished == 0
    assert run.series("loss") == logged
    assert run.summary["loss"] == {"min": 1.0, "last": 3.0}
    assert run.config["training/steps"]["value"] == 50
    cell = server.runs["cccccccccc04"]
    assert cell.summary["fd_digits"] == result.value("fd_digits")
    assert cell.group == "night"
    history = len(cell.history)
    assert sync(tmp_path) == 0
    assert capsys.readouterr().out.count("complete already") == 2
    # Not even if our own note of it is lost: then the server is asked.
    (fit.cell("cccccccccc04").folder / wandb_folder.NOTE).unlink()
    assert sync(tmp_path, "cccccccccc04") == 0
    assert "complete already" in capsys.readouterr().out
    assert len(cell.history) == history
    assert server.unknown == []


def test_offline_files_are_made_again_once(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa05")
    assert sync(tmp_path, "--offline") == 0
    (folder,) = offline_runs(fit.folder)
    said = capsys.readouterr()
    assert f"wandb sync {folder}" in said.err
    assert "5 of 5 rows logged (offline)" in said.out
    assert sync(tmp_path, "--offline") == 0
    assert "complete already" in capsys.readouterr().out
    assert offline_runs(fit.folder) == [folder]
    assert "aaaaaaaaaa05" not in server.runs


def test_a_server_that_fails_costs_a_line_and_no_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = trained(tmp_path, "aaaaaaaaaa06")
    opened = log(fit, rows(20))

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the service is gone")

    monkeypatch.setattr(opened.run, "log", broken)
    for row in rows(50, 20):
        opened.log_row({"loss": row["loss"]}, row["step"])
    opened.log_training(fit.result() or {}, rows(50))
    assert not opened.close()
    said = capsys.readouterr().err
    assert said.count("the service is gone") == 1
    assert "diffsweep wandb-sync" in said
    # What it lacks is then logged.
    assert sync(tmp_path) == 0
    assert "3 of 5 rows logged" in capsys.readouterr().out
    assert [step for step, _ in server.runs["aaaaaaaaaa06"].series("loss")] == [9, 19, 29, 39, 49]


@pytest.fixture
def swept(server: Server, tmp_path: Path) -> tuple[Any, list[Result]]:
    """A sweep of three cells of one fit, done; its plan, and its results."""
    from diffsweep.sweep.plan.plan import Plan, SignedConfig

    fit = trained(tmp_path, "aaaaaaaaaa07")
    asked = [("cccccccccc71", 0.9, 5, "ddim"), ("cccccccccc72", 0.5, 20, "ddim"), ("cccccccccc73", 0.52, 20, "heun")]
    results = [evaluated(fit, *one) for one in asked]
    signed = [
        SignedConfig(one.overrides.split(), CONFIG, CHOICES | one.options, fit.signature, one.cell) for one in results
    ]
    plan = Plan(tmp_path / "sweeps" / "night", tmp_path, "train.py -m sampler=ddim,heun").with_tasks(signed)
    plan.write()
    return plan, results


def test_a_sweep_ends_with_a_summary_a_workspace_and_a_report(
    server: Server, swept: tuple[Any, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = swept
    need_module("wandb_workspaces")
    assert sync(plan.runs, "night") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "summary night: logged"
    run = server.runs["summary-night"]
    assert (run.job_type, run.group, run.finished) == ("sweep summary", "night", 0)
    shown = {name.split("/")[-1].split("_0_")[0] for name in run.files if name.startswith("media/table/")}
    assert shown == {"leaderboard", "cells_table", "against_nfe_table", "against_seconds_table"}
    leaderboard = table(server, "run-summary-night-leaderboard")
    assert [(row["rank"], row["cell"], row["value"]) for row in leaderboard] == [
        (1, "cccccccccc72", 0.5),
        (2, "cccccccccc73", 0.52),
        (3, "cccccccccc71", 0.9),
    ]
    assert [row["samples"]["_type"] for row in leaderboard] == ["image-file"] * 3
    curves = table(server, "run-summary-night-against_nfe_table")
    assert sorted(tuple(row.values()) for row in curves) == [(5, "ddim", 0.9), (20, "ddim", 0.5), (20, "heun", 0.52)]
    view, report = server.views[-2:]
    assert "night" in view["displayName"]
    (runs,) = view["spec"]["section"]["runSets"]
    assert [one["value"] for one in runs["filters"]["filters"]] == ["night"]
    assert report["displayName"] == "diffsweep night"
    text = json.dumps(report["spec"])
    assert "sampler=ddim" in text
    assert "Media Browser" in text
    assert (report["entityName"], report["projectName"]) == (ENTITY, "diffsweep")
    assert f"{server.url}/{ENTITY}/diffsweep" in said.err
    # Once: what is complete is left alone, and a new result changes the same run and makes no second view.
    views = len(server.views)
    assert sync(plan.runs, "night") == 0
    assert capsys.readouterr().out.count("complete already") == 5
    evaluated(plan.run("cccccccccc71").fit, "cccccccccc71", 0.4, 5)
    assert wandb_summary.summarise(plan, SETTINGS) == "logged"
    assert (len(server.views), run.finishes) == (views, 2)
    assert server.unknown == []


def test_the_end_of_a_sweep_tells_wandb_only_if_its_runs_were_shown_there(
    server: Server, swept: tuple[Any, list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep.entry import sweep_end

    plan, _ = swept
    logged = []
    monkeypatch.setattr(wandb_summary, "summarise", lambda plan, settings: logged.append((plan.name, settings)))
    assert sweep_end.show(plan.folder, plan.runs)
    assert logged == [("night", WandbSettings.of(CONFIG))]
    quiet = plan.folder.parent / "quiet"
    text = (plan.folder / "plan.json").read_text()
    quiet.mkdir()
    (quiet / "plan.json").write_text(text.replace('"wandb"', '"csv"'))
    assert sweep_end.show(quiet, plan.runs)
    assert len(logged) == 1


def test_a_summary_that_fails_fails_no_sweep(
    swept: tuple[Any, list[Result]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = swept

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such\nproject")

    monkeypatch.setattr(wandb_run, "_init", broken)
    assert wandb_summary.summarise(plan, SETTINGS) == "failed"
    monkeypatch.setattr(wandb_summary, "_summarise", broken)
    assert wandb_summary.summarise(plan, SETTINGS) == "failed"
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "W&B: no such project: this run is not shown there",
        "W&B: no summary of sweep night: no such project",
    ]


def test_a_workspace_is_built_without_login(monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("wandb_workspaces")
    from diffsweep.tracking.wandb_workspace import workspace

    results = [
        Result.parse({"metric": "fd_x", "fd_x": rate, "sampler": name, "overrides": f"optimizer.lr={rate}"})
        for name, rate in (("a", 0.1), ("b", 0.2))
    ]
    view = json.loads(workspace("team", "p", "night", results)._to_model().spec.model_dump_json(by_alias=True))
    sections = {one["name"]: one["panels"] for one in view["section"]["panelBankConfig"]["sections"]}
    assert list(sections) == ["Groups", "Cost", "Pictures", "Training", "Settings"]
    # Only what varies has bars.
    bars = [panel["config"] for panel in sections["Groups"] if panel["viewType"] == "Bar Chart"]
    assert [(bar["metrics"], bar["groupBy"]) for bar in bars] == [(["fd_x"], "sampler.value")]
    # All that varies is an axis, under the name that it has in the config of a run.
    (lines,) = [panel["config"] for panel in sections["Groups"] if panel["viewType"] == "Parallel Coordinates Plot"]
    assert [column["accessor"] for column in lines["columns"]] == [
        *("config:sampler.value", "config:optimizer/lr.value"),
        *("summary:nfe", "summary:fd_x"),
    ]
    assert flat_config({"optimizer": {"lr": 0.1}}, {}) == {"optimizer/lr": 0.1}
    assert [panel["config"]["xAxis"] for panel in sections["Cost"]] == ["summary:nfe", "summary:sample_seconds"]
    assert sections["Pictures"][0]["config"]["mediaKeys"] == ["grid"]


def composed(runs: Path, *overrides: str) -> tuple[Any, Run]:
    """The config and the record of a training that takes a second."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(
            "config", [*TINY, "training.steps=40", "trainer.progress=false", f"paths.runs={runs}", *overrides]
        )
    return cfg, Run.of(cfg, {"diffuser": "v", "sampler": "ddim", "schedule": "cosine", "backbone": "mlp"})


@pytest.mark.slow
def test_a_training_that_is_preempted_is_one_run_and_does_not_notice_that_it_is_watched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep.runs import stages
    from diffsweep.training.scoring_callbacks import PruningPolicy

    shown = ["logger=wandb", "logger.wandb.mode=online", "logger.wandb.artifact=true"]
    pictured = ["logger.wandb.samples_every=20", "logger.wandb.samples=4"]
    cfg, run = composed(tmp_path / "shown", *shown, *pictured)

    def preempt(step: int, metric: str, value: float) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    with pytest.raises(SystemExit):
        stages.complete(cfg, run, [], "dusk", PruningPolicy((20,), 16, preempt))
    fit, cell = server.runs[run.fit.signature], run.cell.signature
    assert (fit.finished, fit.preempting, fit.job_type, fit.group) == (1, True, "fit", "dusk")
    assert cell not in server.runs
    assert stages.complete(cfg, run, ["sampler=ddim"], "dusk") is not None
    logged = [(line["step"], line["loss"]) for line in read_metrics(run.fit.metrics_file)]
    assert [step for step, _ in logged] == [9, 19, 29, 39]
    assert fit.series("loss") == logged
    assert [step for step, _ in fit.series("gradient_norm")] == [9, 19, 29, 39]
    assert [step for step, _ in fit.series("lr")] == [9, 19, 29, 39]
    assert [step for step, _ in fit.series("grid")] == [19, 39]
    assert (fit.finished, fit.finishes) == (0, 2)
    weights = (run.fit.checkpoints / "ema.safetensors").read_bytes()
    assert [one["files"] for one in server.artifacts.values() if one["run"] == run.fit.signature] == [
        {"ema.safetensors": weights}
    ]
    done = server.runs[cell]
    assert (done.finished, done.job_type, done.group) == (0, "cell", "dusk")
    result = run.cell.result()
    assert result is not None
    assert done.summary[result.metric] == result.main.value
    assert run.cell.samples_file.read_bytes() in done.files.values()
    # The same training without anybody who looks on.
    other, alone = composed(tmp_path / "alone")
    stages.train(other, alone)
    assert alone.fit.signature == run.fit.signature
    assert (alone.fit.checkpoints / "ema.safetensors").read_bytes() == weights
    # A cell that fails says so there.
    again, failing = composed(tmp_path / "shown", *shown, "evaluation.seed=5")
    monkeypatch.setattr("diffsweep.scoring.score.measure", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stages.score(again, failing, [])
    assert server.runs[failing.cell.signature].finished == 1
    assert server.unknown == []


@pytest.mark.slow
def test_an_autoencoder_is_a_run_of_its_own_that_goes_on_after_a_preemption(server: Server, tmp_path: Path) -> None:
    from test_autoencoders import TINY as SMALL

    plain = [word for word in SMALL if not word.startswith("autoencoder.training.steps")]
    shown = ["logger=wandb", "logger.wandb.mode=online", "logger.wandb.artifact=true", "trainer.progress=false"]
    environment = {**server.environment(), "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> forked_runs.Run:
        arguments = [str(ROOT / "train.py"), *plain, "autoencoder.training.steps=400", "stage=autoencoder", *words]
        return forked_runs.Run(arguments, tmp_path, environment)

    first = start(*shown, "trainer.checkpoint_seconds=0.1")

    def half_done() -> list[AutoencoderRecord]:
        found = [AutoencoderRecord(path) for path in tmp_path.glob("runs/autoencoders/*/")]
        return [one for one in found if (one.checkpoints / "last.ckpt").exists() and read_metrics(one.metrics_file)]

    while not (found := half_done()):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    (record,) = found
    first.terminate()
    first.communicate(100)
    begun = server.runs[record.signature]
    assert (begun.job_type, begun.preempting, begun.finishes) == ("autoencoder", True, 1)
    assert begun.series("loss")
    assert not record.done
    second = start(*shown)
    _, errors = second.communicate(200)
    assert second.returncode == 0, errors
    seen = server.runs[record.signature]
    assert (seen.finished, seen.finishes) == (0, 2)
    logged = [(line["step"], line["loss"]) for line in read_metrics(record.metrics_file) if "loss" in line]
    assert [step for step, _ in logged] == list(range(9, 400, 10))
    assert seen.series("loss") == logged
    # The single losses, the discriminator's from where it starts; inputs, reconstructions and prior in one picture.
    assert [step for step, _ in seen.series("likeness")] == list(range(9, 400, 10))
    assert {step for step, _ in seen.series("discriminator")} == set(range(29, 400, 10))
    assert record.pictures_file.read_bytes() in seen.files.values()
    done = record.result()
    assert done is not None
    measured = {key: done[key] for key in ("psnr", "fd_digits", "fd_digits_floor")}
    assert {key: seen.summary[key] for key in measured} == measured
    weights = (record.checkpoints / "ema.safetensors").read_bytes()
    assert [one["files"] for one in server.artifacts.values() if one["run"] == record.signature] == [
        {"ema.safetensors": weights}
    ]
    assert seen.values["autoencoder/network"] == "KL"
    assert server.unknown == []


@pytest.mark.slow
def test_each_job_of_a_sweep_finishes_its_own_run_and_the_sweep_has_a_summary(server: Server, tmp_path: Path) -> None:
    words = ["-m", *TINY, "training.steps=20", "sampler=ddim,heun", "logger=wandb", f"paths.runs={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        capture_output=True,
        text=True,
        env=server.environment(),
        timeout=400,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (sweep,) = [path.name for path in (tmp_path / "sweeps").iterdir()]
    runs = [run for run in server.runs.values() if run.group == sweep]
    assert sorted(str(run.job_type) for run in runs) == ["cell", "cell", "fit", "sweep summary"]
    assert {(run.finished, run.finishes) for run in runs} == {(0, 1)}
    assert {run.values["sampler"] for run in runs if run.job_type == "cell"} == {"ddim", "heun"}
    assert len(table(server, f"run-summary-{sweep}-leaderboard")) == 2
    assert f"W&B: {server.url}" in done.stderr
    assert KEY not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_named_study_has_a_summary_too(server: Server, tmp_path: Path) -> None:
    words = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=2"]
    words += ["hydra.sweeper.study_name=named", *TINY, "training.steps=20", "sampler=ddim,heun", "logger=wandb"]
    environment = {**server.environment(), "OMP_NUM_THREADS": "1"}
    done = forked_runs.run([str(ROOT / "train.py"), *words, f"paths.runs={tmp_path}"], ROOT, environment, 400)
    assert done.returncode == 0, done.stderr
    runs = [run for run in server.runs.values() if run.group == "named"]
    assert sorted(str(run.job_type) for run in runs) == ["cell", "cell", "fit", "sweep summary"]
    assert {run.finished for run in runs} == {0}
    assert len(table(server, "run-summary-named-leaderboard")) == 2
    assert KEY not in done.stdout + done.stderr


def test_without_tensorboard_its_logger_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.tracking import loggers

    for name in ("tensorboard", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"^logger=tensorboard needs a package: pip install tensorboard$"):
        loggers.tensorboard(RunInfo("fit", "a", tmp_path, "a", None, {}))


def test_a_csv_has_each_step_once_after_a_resume_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    from diffsweep.tracking import loggers

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for logged in (rows(30), rows(50)):
            logger = loggers.csv(RunInfo("fit", "a", tmp_path, "a", None, {}))
            for row in logged:
                logger.log_metrics({"loss": row["loss"]}, row["step"])
            loggers.close(logger, failed=False)
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        read_back = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert read_back == [(row["step"], row["loss"]) for row in rows(50)]


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path: Path) -> None:
    events = need_module("tensorboard.backend.event_processing.event_accumulator")
    from diffsweep.tracking import loggers

    for logged in (rows(30), rows(50)):
        logger = loggers.tensorboard(RunInfo("fit", "a", tmp_path, "a", None, {}))
        for row in logged:
            logger.log_metrics({"loss": row["loss"]}, row["step"])
        loggers.close(logger, failed=False)
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    read_back = [(one.step, one.value) for one in read.Scalars("loss")]
    assert read_back == [(row["step"], row["loss"]) for row in rows(50)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"samples_every": 0}, "logger.wandb.samples_every=0 must be a whole number, 1 or more"),
        ({"samples": None}, "logger.wandb.samples=None must be"),
        ({"artifact": "yes"}, "logger.wandb.artifact=yes must be true or false"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_the_users_words(asked: dict[str, Any], words: str) -> None:

    with pytest.raises(ValueError, match=words):
        WandbSettings(**asked)


def test_a_run_with_such_an_option_leaves_nothing_behind(tmp_path: Path) -> None:
    from diffsweep.runs import stages

    cfg, run = composed(tmp_path, "logger=wandb", "logger.wandb.mode=cloud")
    with pytest.raises(ValueError, match="logger mode=cloud is unknown"):
        stages.complete(cfg, run, [])
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    (tmp_path / record_values.PICTURES).mkdir()
    for name in ("00000100.png", "00000020.png", "notes.png"):
        (tmp_path / record_values.PICTURES / name).touch()
    assert [step for step, _ in pictures(tmp_path)] == [20, 100]
