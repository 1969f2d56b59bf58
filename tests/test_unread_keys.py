"""A key that no part of a run reads is refused, wherever a config is composed; one that a constructor takes is not."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import checkpoints_made
import forked_runs
import pipelines_made
from diffsweep.sweep.plan.added_parameters import accept_added_parameters
from diffsweep.sweep.plan.constructor import parameters
from diffsweep.sweep.plan.unread_keys import SETTINGS, refuse_unread
from tiny import TINY

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"

UNREAD = {
    "+lr=0.01": "lr=0.01 is read by no part of a run: did you mean optimizer.lr?",
    "+nfe=5": "nfe=5 is read by no part of a run: did you mean sampler.nfe?",
    "+ema.power=0.75": "ema.power=0.75 is read by no part of a run; valid here: ema.decay",
    "+training.stpes=3": "training.stpes=3 is read by no part of a run: did you mean training.steps",
    "+evaluation.sampels=3": "evaluation.sampels=3 is read by no part of a run: did you mean evaluation.samples",
    "+trainer.limit_train_batches=2": "trainer.limit_train_batches=2 is read by no part of a run",
    "+sweeep=few_steps": "sweeep=few_steps is read by no part of a run: did you mean",
    "+experiments=toy": "experiments=toy is read by no part of a run: did you mean experiment?",
    "+optimizer.lrr=1": "optimizer.lrr=1 is no parameter of torch.optim.AdamW: did you mean optimizer.lr",
    "+sampler.nfee=3": "sampler.nfee=3 is no parameter of diffsweep.diffusion.sampler.Sampler: did you mean sampler.nf",
    "+sampler.noise.etaa=3": "sampler.noise.etaa=3 is no parameter of diffsweep.diffusion.noise.SDE: did you mean",
    "+evaluation.metrics.kernel.degre=2": "evaluation.metrics.kernel.degre=2 is no parameter of ",
    "+resources.fit.mem=3GB": "resources.fit.mem=3GB is read by no part of a run: did you mean resources.fit.memory",
    "+guidance.scale=3": "guidance.scale=3 is no parameter of diffsweep.diffusion.guidance.Unguided",
    "+validation.every=3": "validation.every=3 is read by no part of a run: choose an option of validation",
    "+note='about ${seed}'": "note=about 0 is read by no part of a run",
    "optimizer._target_=torch.optim.SGD": "optimizer.betas=[0.9, 0.99] is no parameter of torch.optim.SGD",
}
READ = [
    ["+optimizer.amsgrad=true"],
    ["optimizer.eps=1e-9", "optimizer.amsgrad=true"],
    ["+lr=0.01", "optimizer.lr=${lr}"],
    ["+mine={rate:0.01,width:8}", "optimizer.lr=${mine.rate}"],
    ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "optimizer.nesterov=true", "+optimizer.momentum=0.9"],
    ["+dataset={_target_:own.module.Data,anything:1}"],
]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize("override", UNREAD)
def test_a_key_that_nothing_reads_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(ValueError) as raised:
        refuse_unread(composed(override))
    said = str(raised.value)
    assert said.startswith(UNREAD[override])
    assert "\n" not in said
    assert "+" not in said


# Options that are nothing without a collection of pictures, or without a network that the user names.
PICTURES = {f"dataset={name}" for name in ("celeba", "emoji", "imagenet", "images")}
# Four videos of stripes and four decaying sines.
CLIPS = ROOT / "tests" / "data" / "clips"
COMPANIONS = {
    "dataset=video": [f"dataset.path={CLIPS / 'video'}", "dataset.size=8", "dataset.frames=4"],
    "extractor=audio": ["evaluation.extractor.sample_rate=4000"],
    "extractor=tones": ["evaluation.extractor.sample_rate=4000"],
    "dataset=audio": [f"dataset.path={CLIPS / 'audio'}", "dataset.length=2048"],
    "extractor=torchvision": ["evaluation.extractor.model=resnet18", "evaluation.extractor.weights=w.pth"],
    "extractor=timm": ["evaluation.extractor.model=resnet18", "evaluation.extractor.weights=w.pth"],
    "extractor=module": ["evaluation.extractor.network._target_=torch.nn.Flatten", "evaluation.extractor.space=mine"],
}


@pytest.mark.parametrize("overrides", READ, ids=" ".join)
def test_a_key_that_something_reads_is_taken(overrides: list[str]) -> None:
    accept_added_parameters()
    refuse_unread(composed(*overrides))


def test_every_option_that_there_is_has_only_keys_that_are_read(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("L", (8, 8), 100 * number).save(tmp_path / f"{number}.png")

    def options(*names: str) -> list[list[str]]:
        return [[f"{name}={path.stem}" for path in (CONF / name).glob("*.yaml")] for name in names]

    # Those that choose options of other groups are tried alone.
    alone = [f"experiment={path.stem}" for path in CONF.glob("experiment/*.yaml")]
    alone += [f"+sweeps={path.stem}" for path in CONF.glob("sweeps/*.yaml")]
    # Autoencoders are for images.
    alone += [f"autoencoder={path.stem}" for path in CONF.glob("autoencoder/*.yaml")]
    others = ("autoencoder", "hydra", "metric", "experiment", "sweeps")
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in others)
    parts = sorted(f"{path.parent.name}/{path.name}" for path in CONF.glob("*/*") if path.is_dir())
    parts = [part for part in parts if part.partition("/")[0] in ("diffuser", "guidance", "sampler")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for some in (*zip(alone), *zip_longest(*options(*groups)), *zip_longest(*options(*parts))):
            chosen = [option for option in some if option is not None]
            # A collection of pictures is nothing without them.
            place = [f"dataset.path={tmp_path}"] if PICTURES & set(chosen) else []
            place += [word for option in chosen for word in COMPANIONS.get(option, ())]
            if "autoencoder=pretrained" in chosen:
                place.append(f"autoencoder.network.folder={checkpoints_made.autoencoder_kl()}")
            if "condition=imported_text" in chosen:
                place.append(f"pretrained={pipelines_made.of_digits()}")
            elif any(option.endswith("=imported") for option in chosen):
                place.append(f"pretrained={checkpoints_made.ddpm()}")
            refuse_unread(compose("config", [*chosen, *place]))


def test_what_a_run_reads_itself_is_what_the_configs_have() -> None:
    cfg = composed("validation=best", "logger=wandb", "autoencoder=kl")
    for path, names in SETTINGS.items():
        node = OmegaConf.select(cfg, path) if path else cfg
        if "_target_" not in node:
            assert set(names) == set(node), path


def test_what_a_constructor_takes_is_read_rightly_from_its_source() -> None:
    targets = {
        one for path in CONF.rglob("*.yaml") for one in re.findall(r"(?m)^[^#\n]*_target_: ([\w.]+)", path.read_text())
    }
    assert len(targets) > 100
    for target in sorted(target for target in targets if not target.startswith("hydra_plugins.")):
        there = inspect.signature(get_object(target)).parameters.values()
        names = {one.name for one in there if one.kind is not one.VAR_POSITIONAL}
        known = None if any(one.kind is one.VAR_KEYWORD for one in there) else names
        assert parameters(target) == known, target


def said_by(folder: Path, *words: str) -> list[str]:
    """What a command that is refused says: its one line."""
    where = ["-m"] if words[0] == "diffsweep" else [str(ROOT / "train.py")]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *where, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert "evaluate" in words or not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
    return [line for line in done.stderr.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    "words",
    [
        ["+training.stpes=3"],
        ["-m", "seed=1,2", "sweeps=own"],
        ["-m", "hydra/sweeper=optuna", "training.steps=3,4", "+training.stpes=3"],
        ["diffsweep", "plan", "+training.stpes=3,4"],
        ["diffsweep", "evaluate", "pictures", "--reference=digits", "+training.stpes=3"],
    ],
    ids=" ".join,
)
def test_no_door_lets_a_key_in_that_nothing_reads(tmp_path: Path, words: list[str]) -> None:
    for name in ("train.py", "conf"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "own" / "sweeps").mkdir(parents=True)
    (tmp_path / "own" / "sweeps" / "own.yaml").write_text("# @package _global_\ntraining: {stpes: 3}\n")
    folder = [f"--config-dir={tmp_path / 'own'}"] if "sweeps=own" in words else []
    said = said_by(tmp_path, *folder, *words, *(TINY if "diffsweep" not in words else []))
    assert len(said) == 1, said
    assert "training.stpes=3 is read by no part of a run: did you mean training.steps" in said[0]
    assert not (tmp_path / "runs").exists()


def test_a_parameter_that_a_yaml_leaves_out_is_set_as_any_other(tmp_path: Path) -> None:
    words = [str(ROOT / "train.py"), "-m", *TINY, "optimizer.amsgrad=true,false", "mode=plan"]
    done = forked_runs.run(words, tmp_path, os.environ, 300)
    assert done.returncode == 0, done.stderr
    assert "2 cells of 2 trainings" in done.stderr
