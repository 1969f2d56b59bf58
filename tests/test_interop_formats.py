"""Weights in other formats than that of diffusers, and networks of the user's own, told what they predict and where."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

import oracle_network
from diffsweep import results
from diffsweep.commands import main
from diffsweep.diffusion import Condition, Denoiser, Sampler
from diffsweep.diffusion.schedules import Rectified
from diffsweep.diffusion.solvers import DPMpp2M, Euler, Heun
from diffsweep.diffusion.spacing import Karras, Time
from diffsweep.interop.imported import Import
from diffsweep.runs.build import Components
from diffsweep.runs.trust import trusting
from diffsweep.sweep.plan.imported_options import with_imported_options

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def loaded(folder: Path, *words: str, trust: bool = True) -> tuple[Denoiser, Any]:
    """The denoiser of a folder with its weights, in evaluation mode, and the config of a run with it."""
    with trusting(everything=trust), initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = (f"pretrained={folder}", "dataset=digits", *words)
        cfg = compose("config", overrides=with_imported_options(list(words)))
        fitting = Components.of(cfg).fitting
        assert isinstance(fitting, Import)
        fitting.load()
    return fitting.denoiser.eval(), cfg


def described(folder: Path, **content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(content))
    return folder


EXPLODING = {"_target_": "diffsweep.diffusion.schedules.Karras", "rho": 7.0, "sigma_min": 0.002, "sigma_max": 80.0}
PATHS: dict[str, Any] = {"preserving": "linear", "exploding": EXPLODING, "straight": "rectified"}
# What a network predicts, how it is told the level, on which path, at which scale of its input.
CONVENTIONS = [
    ("eps", "timestep", "preserving", "path"),
    ("v", "timestep", "preserving", "unit"),
    ("x0", "logsnr", "preserving", "path"),
    ("v", "logsnr", "preserving", "path"),
    ("eps", "noise", "exploding", "path"),
    ("eps", "log", "exploding", "unit"),
    ("x0", "noise", "exploding", "data"),
    ("edm", "quarter_log", "exploding", "data"),
    ("edm", "noise", "exploding", "data"),
    ("score", "noise", "exploding", "path"),
    ("flow", "time", "straight", "path"),
    ("velocity", "data_time", "straight", "path"),
    ("x0", "time", "straight", "path"),
    ("v", "time", "straight", "unit"),
]


@pytest.mark.parametrize(("predicts", "level", "path", "scale"), CONVENTIONS)
@torch.no_grad()
def test_every_convention_gives_what_an_exact_model_gives(
    predicts: str, level: str, path: str, scale: str, tmp_path: Path
) -> None:
    network = {"_target_": "oracle_network.Oracle", "predicts": predicts, "level": level, "path": path, "scale": scale}
    folder = described(
        tmp_path / "model",
        network=network,
        weights="model.safetensors",
        predicts=predicts,
        level=level,
        schedule=PATHS[path],
        scale=scale,
    )
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    denoiser, _ = loaded(folder)
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    # Not on its own path only: a sampler may leave it.
    for schedule in (
        (denoiser.schedule, Rectified()) if predicts != "eps" and path == "straight" else (denoiser.schedule,)
    ):
        for solver in (DPMpp2M(), Heun("eps")):
            # The first step of a chain is the least noise that it can be told.
            sampler = Sampler(solver, Karras(7.0, 0.02, 50.0), 12)
            exact = sampler(oracle_network.MIXTURE, noise.flatten(1), schedule=schedule).view_as(noise)
            mine = sampler(denoiser, noise, schedule=schedule)
            assert float((mine - exact).abs().max() / exact.abs().max()) < 1e-4


def test_a_level_off_the_path_is_denoised_rightly(tmp_path: Path) -> None:
    network = {"_target_": "oracle_network.Oracle", "predicts": "v", "level": "logsnr", "path": "preserving"}
    folder = described(
        tmp_path / "model", network=network, weights="a.safetensors", predicts="v", level="logsnr", schedule="cosine"
    )
    save_file({"nothing": torch.zeros(1)}, folder / "a.safetensors")
    denoiser, _ = loaded(folder)
    level = denoiser.schedule.level(0.4).at(2.0)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = oracle_network.MIXTURE(x.flatten(1), level).view_as(x)
    with torch.no_grad():
        assert torch.allclose(denoiser(x, level), exact, atol=1e-5)


def test_a_class_of_somebody_elses_is_refused_without_trust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil_network.py").write_text(f"import os; os.mkdir({str(tmp_path / 'marker')!r})\nclass Net: ...\n")
    folder = described(
        tmp_path / "model",
        network={"_target_": "evil_network.Net"},
        weights="a.safetensors",
        predicts="eps",
        level="timestep",
        schedule="linear",
    )
    save_file({"nothing": torch.zeros(1)}, folder / "a.safetensors")
    command = ["import", str(folder), "--dataset", "digits", "--runs", str(tmp_path / "runs")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "evil_network.Net" in said
    assert "--trust" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "runs").exists()
    assert main([*command, "--trust"]) == 2
    assert (tmp_path / "marker").exists(), "the class would have run code"


def good(**changes: Any) -> dict[str, Any]:
    network = {"_target_": "oracle_network.Oracle", "predicts": "eps", "level": "timestep", "path": "preserving"}
    content = {"network": network, "weights": "a.safetensors", "predicts": "eps", "level": "timestep"}
    return {**content, "schedule": "linear", **changes}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (good(predict="eps"), "did you mean predicts"),
        (good(predicts="noise"), "predicts=noise is unknown"),
        (good(level="timestpe"), "did you mean timestep"),
        (good(schedule="linaer"), "did you mean linear"),
        (good(schedule={"_target_": "os.mkdir", "path": "x"}), "must be one of"),
        (good(level={"_target_": "os.mkdir"}), "must be one of"),
        (good(scale="big"), "scale=big"),
        (good(weights="../a.safetensors"), "weights=../a.safetensors"),
        (good(weights="b.safetensors"), "is not there"),
        (good(weights="a.txt"), "weights=a.txt"),
        (good(network="unet"), "must be dit, or name a class"),
        (good(network={"_target_": "os"}), "no dotted name"),
        (good(network={"_target_": "a.B", "x": "${oc.env:HOME}"}), "network.x"),
        (good(network="dit"), "no weights of a DiT"),
        (good(classes=-1), "classes=-1"),
        (good(sigma_data=0), "sigma_data=0"),
        (good(prefix="other."), "begin with other."),
        ({"network": "dit"}, "weights is missing"),
        ([1, 2], "must hold names"),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_description_is_refused_in_one_line(
    content: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    save_file({"nothing": torch.zeros(1)}, folder / "a.safetensors")
    command = ["import", str(folder), "--dataset", "digits", "--runs", str(tmp_path / "runs")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1, error
    assert not (tmp_path / "runs").exists()


# --------------------------------------------------------------------------------------------- DiT, SiT, k-diffusion


def dit_weights() -> dict[str, torch.Tensor]:
    """A state_dict with the names of DiT's published weights: one block of width 384 for 8x8 grey pictures."""
    width, generator = 384, torch.Generator().manual_seed(0)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, torch.Tensor]:
        weight = torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)
        return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs, generator=generator)}

    found = {
        "pos_embed": torch.randn(1, 16, width, generator=generator),
        "x_embedder.proj.weight": torch.randn(width, 1, 2, 2, generator=generator),
        "x_embedder.proj.bias": torch.zeros(width),
        "y_embedder.embedding_table.weight": torch.randn(11, width, generator=generator),
        **linear("t_embedder.mlp.0", width, 256),
        **linear("t_embedder.mlp.2", width, width),
        **linear("final_layer.linear", 2 * 4, width),
        **linear("final_layer.adaLN_modulation.1", 2 * width, width),
    }
    for name, outputs, inputs in (
        ("attn.qkv", 3, 1),
        ("attn.proj", 1, 1),
        ("mlp.fc1", 4, 1),
        ("mlp.fc2", 1, 4),
        ("adaLN_modulation.1", 6, 1),
    ):
        found |= linear(f"blocks.0.{name}", outputs * width, inputs * width)
    return found


def as_diffusers(weights: dict[str, torch.Tensor]) -> Any:
    """The same network in diffusers, but for its frequencies, which are others there."""
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=64,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_eps=1e-6,
    )
    block = "transformer_blocks.0"
    names = {
        "pos_embed.proj": "x_embedder.proj",
        f"{block}.norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        f"{block}.norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        f"{block}.norm1.linear": "blocks.0.adaLN_modulation.1",
        f"{block}.attn1.to_out.0": "blocks.0.attn.proj",
        f"{block}.ff.net.0.proj": "blocks.0.mlp.fc1",
        f"{block}.ff.net.2": "blocks.0.mlp.fc2",
        "proj_out_1": "final_layer.adaLN_modulation.1",
        "proj_out_2": "final_layer.linear",
    }
    state = {f"{to}.{kind}": weights[f"{of}.{kind}"] for to, of in names.items() for kind in ("weight", "bias")}
    state[f"{block}.norm1.emb.class_embedder.embedding_table.weight"] = weights["y_embedder.embedding_table.weight"]
    for kind in ("weight", "bias"):
        for part, value in zip("qkv", weights[f"blocks.0.attn.qkv.{kind}"].chunk(3), strict=True):
            state[f"{block}.attn1.to_{part}.{kind}"] = value
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"pos_embed.pos_embed"}
    model.pos_embed.pos_embed.copy_(weights["pos_embed"])
    model.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 0
    return model.eval()


@torch.no_grad()
def test_weights_of_dit_and_sit_fit_as_they_are(tmp_path: Path) -> None:
    folder = described(
        tmp_path / "dit",
        network="dit",
        weights="dit.pt",
        entry="ema",
        predicts="eps",
        level="timestep",
        schedule="linear",
    )
    weights = dit_weights()
    torch.save({"ema": weights, "model": weights, "args": {"lr": 1e-4}}, folder / "dit.pt")
    denoiser, cfg = loaded(folder)
    assert cfg.backbone.network_classes == 10
    x, labels = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 10])
    theirs = as_diffusers(weights)(x, timestep=torch.tensor([500, 500]), class_labels=labels).sample[:, :1]
    network: Any = denoiser.backbone.get_submodule("network")
    mine = network(x, torch.tensor([500.0, 500.0]), labels)
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-5
    described(
        folder,
        network="dit",
        weights="dit.pt",
        predicts="velocity",
        level="data_time",
        schedule="rectified",
        entry="ema",
    )
    sit, _ = loaded(folder)
    # An Euler step of SiT's own: x goes from noise at 0 to data at 1 along its velocity.
    mine = Sampler(Euler(), Time(), 4)(sit, x, schedule=sit.schedule, condition=Condition.of(label=labels))
    state = x
    for i in range(4):
        state = state + network(state, torch.full((2,), i / 4), labels) / 4
    assert float((mine - state).abs().max() / state.abs().max()) < 1e-4


def test_a_pickle_of_several_weights_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = described(
        tmp_path / "dit", network="dit", weights="dit.pt", predicts="eps", level="timestep", schedule="linear"
    )
    torch.save({"ema": dit_weights(), "model": dit_weights()}, folder / "dit.pt")
    assert main(["import", str(folder), "--dataset", "digits", "--runs", str(tmp_path / "runs")]) == 2
    assert "choose one, as entry: ema" in capsys.readouterr().err
    assert main(["import", str(folder / "dit.pt"), "--dataset", "digits", "--runs", str(tmp_path / "runs")]) == 2
    assert "model.yaml" in capsys.readouterr().err


K_MODEL = {
    "type": "image_v1",
    "input_channels": 1,
    "input_size": [8, 8],
    "patch_size": 1,
    "mapping_out": 16,
    "depths": [1, 1],
    "channels": [16, 16],
    "self_attn_depths": [False, True],
    "augment_wrapper": False,
    "sigma_data": 0.5,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
}


class Absent(ModuleType):
    """A package that k-diffusion imports at its top and its networks do without."""

    def __getattr__(self, name: str) -> Any:
        return None


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As jsonmerge's `merge`."""
    inner = {key: merged(below.get(key, {}), value) for key, value in above.items() if isinstance(value, dict)}
    return {**below, **above, **inner}


@torch.no_grad()
def test_samples_of_k_diffusion_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    # Another test may have put the shell of the package there, to do without what it imports.
    for name in [name for name in sys.modules if name.partition(".")[0] == "k_diffusion"]:
        monkeypatch.delitem(sys.modules, name)
    names = ("clip", "cleanfid", "cleanfid.inception_torchscript", "dctorch", "jsonmerge", "skimage")
    absent = {name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None}
    for name in absent:
        monkeypatch.setitem(sys.modules, name, Absent(name))
    if isinstance(sys.modules.get("jsonmerge"), Absent):
        monkeypatch.setattr(sys.modules["jsonmerge"], "merge", merged, raising=False)
    package = pytest.importorskip("k_diffusion", exc_type=ImportError)
    full = package.config.load_config({"model": dict(K_MODEL), "dataset": {"type": "none", "num_classes": 0}})
    torch.manual_seed(0)
    inner = package.config.make_model(full).eval()
    for parameter in inner.parameters():
        if not bool(parameter.any()):
            parameter.normal_(std=0.02)
    folder = tmp_path / "k"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": K_MODEL, "optimizer": {"type": "adamw"}}))
    save_file(inner.state_dict(), folder / "model.safetensors")
    denoiser, _ = loaded(folder)
    model = package.config.make_denoiser_wrapper(full)(inner)
    sigmas = package.sampling.get_sigmas_karras(10, 0.002, 80.0)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, solver, nfe in (("euler", Euler(), 10), ("dpmpp_2m", DPMpp2M(), 10), ("heun", Heun("eps"), 19)):
        draw = getattr(package.sampling, f"sample_{name}")
        theirs = draw(model, noise * 80.0, sigmas, disable=True)
        mine = Sampler(solver, Karras(), nfe)(denoiser, noise, schedule=denoiser.schedule)
        assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-4


def test_an_imported_module_is_swept_by_the_name_of_its_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.getcwd() == str(ROOT)  # noqa: PTH109
    folder = described(tmp_path / "model", **good())
    save_file({"nothing": torch.zeros(1)}, folder / "a.safetensors")
    fit = results.import_model(folder, "digits", runs=tmp_path / "runs", trust=True).fit
    with pytest.raises(ValueError, match="--trust"):
        results.load_fit(fit.signature, tmp_path / "runs")
    denoiser = results.load_fit(fit.signature, tmp_path / "runs", trust=True)
    level, x = denoiser.schedule.level(0.5), torch.randn(2, 1, 8, 8)
    exact = oracle_network.MIXTURE(x.flatten(1), level).view_as(x)
    assert torch.allclose(denoiser(x, level), exact, atol=1e-4)
