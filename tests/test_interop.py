"""A model of diffusers becomes a fit that everything works on, and a fit becomes a folder of diffusers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints_made
import forked_runs
from diffsweep import results
from diffsweep.commands import main
from diffsweep.diffusion import Condition
from diffsweep.interop.diffusers_scheduler import read_scheduler
from diffsweep.runs.instantiate import make_conditioners
from diffsweep.sweep.store.record import Fit

diffusers = pytest.importorskip("diffusers")

ROOT = Path(__file__).parent.parent
FEW = ["dataset=digits", "evaluation.samples=32", "trainer.threads=1"]


def train(place: Path, *words: str) -> Any:
    return forked_runs.run([str(ROOT / "train.py"), *words, f"paths.runs={place}"], ROOT, dict(os.environ), 300)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A runs folder with a sweep over samplers of an imported model, and the process that made it."""
    place = tmp_path_factory.mktemp("swept") / "runs"
    words = ["-m", f"pretrained={checkpoints_made.ddpm()}", "sampler=ddim,heun", "sampler.nfe=4,7"]
    return place, train(place, *words, *FEW)


def test_a_sweep_over_samplers_of_an_imported_model_trains_nothing(swept: tuple[Path, Any]) -> None:
    place, done = swept
    assert done.returncode == 0, done.stderr
    (folder,) = (place / "fits").iterdir()
    fit = Fit(folder)
    record = fit.result()
    assert record is not None
    assert record["origin"] == "imported"
    assert record["imported_from"] == str(checkpoints_made.ddpm())
    assert record["parameters"] == 44_969
    assert not fit.metrics_file.exists()
    found = results.load(place)
    assert sorted(zip(found["sampler"], found["nfe"], strict=True)) == [
        ("ddim", 4),
        ("ddim", 7),
        ("heun", 3),
        ("heun", 7),
    ]
    assert set(found["imported_from"]) == {str(checkpoints_made.ddpm())}
    report = next((place / "sweeps").iterdir()) / "report.html"
    assert "imported from" in report.read_text(encoding="utf-8")


def test_commands_know_an_imported_fit(swept: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = swept
    for command in (["status", "--runs"], ["resume", "last", "--runs"], ["gc", "--runs"], ["results", "--runs"]):
        assert main([*command, str(place)]) == 0
    assert "done" in capsys.readouterr().out
    model = results.load_fit("last", place)
    assert not model.training
    drawn = results.sample("last", 3, runs=place, sampler="unipc", nfe=5, show=False)
    assert drawn.shape == (3, 1, 8, 8)


def test_a_fit_is_known_by_the_content_of_its_weights(swept: tuple[Path, Any], tmp_path: Path) -> None:
    place, _ = swept
    first = next((place / "fits").iterdir()).name
    copy = tmp_path / "elsewhere"
    shutil.copytree(checkpoints_made.ddpm(), copy)
    assert results.import_model(copy, "digits", runs=place).fit.signature == first
    # The name of a fit stands for its model.
    assert results.import_model(first, "digits", runs=place).fit.signature == first
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"] += 1
    save_file(tensors, file)
    assert results.import_model(copy, "digits", runs=place).fit.signature != first


def test_shards_and_pickles_of_tensors_are_the_same_weights_as_one_file(tmp_path: Path) -> None:
    from diffsweep.interop.checkpoint import read

    folder, file = tmp_path / "model", "unet/diffusion_pytorch_model.safetensors"
    shutil.copytree(checkpoints_made.ddpm(), folder)
    whole = read(folder)
    digest, state = whole.digest(), whole.state()
    tensors = load_file(folder / file)
    (folder / file).unlink()
    torch.save(tensors, folder / "unet" / "diffusion_pytorch_model.bin")
    pickled = read(folder)
    names = sorted(tensors)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for name, half in halves.items():
        save_file({key: tensors[key] for key in half}, folder / "unet" / name)
    index = {"weight_map": {key: name for name, half in halves.items() for key in half}}
    (folder / f"{file}.index.json").write_text(json.dumps(index))
    sharded = read(folder)
    assert digest == pickled.digest() == sharded.digest()
    for found in (pickled, sharded):
        assert all(torch.equal(value, state[name]) for name, value in found.state().items())


def test_a_source_that_changed_before_the_job_is_refused(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from diffsweep.interop.imported import Import
    from diffsweep.runs.build import Components
    from diffsweep.sweep.plan.imported_options import with_imported_options

    folder = tmp_path / "model"
    shutil.copytree(checkpoints_made.ddpm(), folder)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=with_imported_options([f"pretrained={folder}", "dataset=digits"]))
    fitting = Components.of(cfg).fitting
    assert isinstance(fitting, Import)
    checkpoints_made.rewrite(folder, norm_eps=1e-4)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="other weights now"):
        fitting(Fit(tmp_path / "runs" / "fits" / "one"))
    assert not (tmp_path / "runs").exists()


GAUSSIAN_ONLY = (
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "VQDiffusionScheduler",
)


def test_every_scheduler_of_diffusers_is_read_or_refused_in_one_line() -> None:
    schedulers: Any = diffusers.schedulers
    names = [name for name in dir(schedulers) if name.endswith("Scheduler") and hasattr(schedulers, name)]
    assert len(names) >= 45
    refused = {}
    for name in names:
        try:
            process = read_scheduler({"_class_name": name})
        except ValueError as error:
            refused[name] = str(error)
            continue
        assert process.notes
    assert all("\n" not in line for line in refused.values())
    assert len(names) - len(refused) >= 30, sorted(refused)
    assert {name for name in GAUSSIAN_ONLY if name in names} <= set(refused)


# ------------------------------------------------------------------------------------------------------------- export


def stated(cell: str, runs: Path, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Noise and labels of a cell's first samples, and these as the network has them."""
    from diffsweep.random_streams import generator
    from diffsweep.runs.build import make_guidance
    from diffsweep.runs.instantiate import make
    from diffsweep.runs.load_fit import finished
    from diffsweep.scoring.sampling import Model, Sampling

    request = results.sample_request(cell, runs=runs, device="cpu")
    denoiser = finished(runs, request.fit.signature)
    model = Model(denoiser, denoiser.schedule, make(request.cfg, "dataset"), make_conditioners(request.cfg))
    sampler = make(request.cfg, "sampler")
    sampling = Sampling(model, sampler, request.seed, make_guidance(request.cfg, model, sampler))
    noise = torch.stack([torch.randn(1, 8, 8, generator=generator(request.seed, "image", i)) for i in range(n)])
    labels = sampling.requests.classes(n)
    told = None if labels is None else Condition.of(label=labels)
    with torch.no_grad():
        x0 = sampler(sampling.guided, noise, schedule=model.schedule, condition=told)
    return noise, x0, labels


def test_a_model_of_ours_becomes_a_pipeline_that_draws_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, folder = tmp_path / "runs", tmp_path / "my-model"
    words = ["training.steps=3", "training.warmup=0", "backbone.width=8", "condition=label", "sampler.nfe=5"]
    done = train(place, *FEW, *words, "guidance=cfg", "guidance/output=clip")
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    assert main(["export", "last", str(folder), "--runs", str(place), "--licence", "mit"]) == 0
    out = capsys.readouterr().out
    assert "DenoiserPipeline" in out
    from diffsweep.results.diffusers_pipeline import DenoiserPipeline

    pipeline = DenoiserPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise, x0, labels = stated("last", place, 4)
    theirs = pipeline(noise=noise, class_labels=labels, output_type="x0").images
    assert float((theirs - x0).abs().max()) < 1e-5
    assert torch.equal(pipeline(noise=noise, output_type="x0").images, theirs), "labels are those of numbers"
    assert len(pipeline(batch_size=2).images) == 2
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict()["license"] == "mit"
    assert "fd_digits" in card.text
    assert "CC BY 4.0" in card.text
    assert [path.suffix for path in (folder / "denoiser").iterdir() if path.name != "config.json"] == [".safetensors"]
    # What a hostile folder names is not imported.
    file = folder / "denoiser" / "config.json"
    file.write_text(file.read_text().replace("diffsweep.backbones.UNet", "os.system"))
    with pytest.raises(ValueError, match=r"os\.system"):
        DenoiserPipeline.from_pretrained(folder)
    assert main(["export", "last", str(folder), "--runs", str(place)]) == 2
    assert "is there already" in capsys.readouterr().err


SCHEDULERS = {
    "sampler=ddim": "DDIMScheduler",
    "sampler=dpmpp_2m": "DPMSolverMultistepScheduler",
    "sampler=unipc": "UniPCMultistepScheduler",
    "sampler=heun": "HeunDiscreteScheduler",
}


def test_a_network_of_diffusers_is_written_as_stock_classes_that_draw_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "runs"
    model = checkpoints_made.ddpm()
    for sampler, kind in SCHEDULERS.items():
        nfe = 19 if sampler == "sampler=heun" else 10
        words = [sampler, f"sampler.nfe={nfe}", "sampler/spacing=time", "guidance/output=none"]
        done = train(place, f"pretrained={model}", *FEW, *words)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / kind
        assert main(["export", "last", str(folder), "--runs", str(place)]) == 0
        assert "careful" not in capsys.readouterr().out
        network = diffusers.UNet2DModel.from_pretrained(folder / "unet")
        scheduler = getattr(diffusers, kind).from_pretrained(folder / "scheduler")
        noise, x0, _ = stated("last", place, 3)
        scheduler.set_timesteps(10)
        start = float(scheduler.init_noise_sigma)
        x = noise * (start if start > 1 else float((1 - scheduler.alphas_cumprod[-1]) ** 0.5))
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(network(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        assert float((x - x0).abs().max() / x0.abs().max()) < 1e-5, kind
        assert results.import_model(folder, "digits", runs=place).fit.done


def test_a_stock_folder_comes_back_out_of_the_hubs_cache_without_a_hub(tmp_path: Path) -> None:
    """The layout of huggingface_hub's cache, which is where a download ends."""
    cache = tmp_path / "models--me--mine"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(checkpoints_made.ddpm(), cache / "snapshots" / ("0" * 40))
    from huggingface_hub import snapshot_download

    folder = snapshot_download("me/mine", cache_dir=tmp_path, local_files_only=True)
    assert "UNet2DModel of 44,969 parameters" in results.import_model(folder, "digits", runs=tmp_path).understood
