"""The conf tree is the registry: every option composes, builds, hides no default, and nonsense is refused in time."""

from __future__ import annotations

import functools
import inspect
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

import checkpoints_made
import forked_runs
import pipelines_made
import text_encoders
from diffsweep.diffusion.times import LogNormal
from diffsweep.diffusion.weight import EDM
from diffsweep.former_names import FORMER
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make
from diffsweep.runs.stages import complete
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import canonical, cell_signature, resolved
from diffsweep.training.fit import Fitting

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
# An experiment's own parts are chosen by the experiment, not by a user; they are tested as parts of it.
OPTIONS = [
    path
    for path in FILES
    if path.parent != CONF
    and path.relative_to(CONF).parts[0] != "hydra"
    and CONF / "experiment" not in path.parents[1:]
]
EXPERIMENTS = [path for path in OPTIONS if path.parent.name == "experiment"]
TRAINERS = [path for path in OPTIONS if path.parent.name == "trainer"]

# A trainer is asked for its devices when it is built; everything else about it can be tested without them.
ON_CPU = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto"]

# Classifier-free guidance needs a model that is told labels.
LABELLED = ["condition=label"]

POINTS = ("checkerboard", "mixture", "moons", "spirals", "swissroll")

# A picture of any kind, for what is asked of an option alone.
OWN_PICTURES = f"dataset.path={ROOT / 'docs'}"

# A model that is there already, with its parts; what asks for one of them asks for all.
IMPORTED = ["schedule=imported", "diffuser=imported", "backbone=imported", "condition=imported"]

# Four videos of stripes and four decaying sines, 8x8 and 2,048 samples.
CLIPS = ROOT / "tests" / "data" / "clips"

VIDEOS, SOUNDS = ["dataset=moving_digits"], ["dataset=tones"]

# What an option needs beside it; without an entry it must go with all the defaults.
COMPANIONS: dict[str, list[str]] = {
    "backbone=mlp": ["dataset=mixture"],
    "guidance=autoguidance_self": ["training.keep=[0.5]"],
    **{f"dataset={name}": ["backbone=mlp"] for name in POINTS},
    **{f"extractor={name}": ["backbone=mlp", f"dataset={name}"] for name in POINTS},
    **{
        f"extractor={name}": [f"dataset={name}"]
        for name in ("fashion_mnist", "fashion_mnist_bits", "fashion_mnist_captions")
    },
    "backbone=jit_b": ["dataset=images", "dataset.size=32", OWN_PICTURES],
    **{f"backbone=unet_{side}": ["dataset=images", f"dataset.size={side}", OWN_PICTURES] for side in (128, 256, 512)},
    **{f"{group}=images": ["dataset=images", "dataset.size=8", OWN_PICTURES] for group in ("dataset", "extractor")},
    **{f"dataset={name}": ["dataset.size=8", OWN_PICTURES] for name in ("celeba", "emoji", "imagenet")},
    **{f"{group}=imported": IMPORTED for group in ("schedule", "diffuser", "backbone", "condition", "guidance/output")},
    "condition=text": ["dataset=digits_captions"],
    "condition=imported_text": ["dataset=digits_captions", *IMPORTED[:3], "guidance/output=imported"],
    "metric=spatial": ["extractor=inception"],
    **{
        f"extractor={name}": [f"evaluation.extractor.model={model}", "evaluation.extractor.weights=w.safetensors"]
        for name, model in (("torchvision", "resnet18"), ("timm", "resnet18"))
    },
    "extractor=module": [
        "evaluation.extractor.network._target_=torch.nn.Flatten",
        "evaluation.extractor.space=mine",
        "evaluation.extractor.size=8",
    ],
    **dict.fromkeys(("extractor=moving_digits", "extractor=video", "metric=frames", "metric=differences"), VIDEOS),
    **dict.fromkeys(("extractor=tones", "extractor=audio"), SOUNDS),
    "dataset=video": ["dataset.size=8", "dataset.frames=4", f"dataset.path={CLIPS / 'video'}"],
    "dataset=audio": ["dataset.length=2048", f"dataset.path={CLIPS / 'audio'}"],
    **{f"guidance={name}": LABELLED for name in ("apg", "cfg", "cfgpp", "each", "interval", "rescaled", "zero_star")},
    "trainer=ddp": ON_CPU,
    "trainer=gpu": ON_CPU,
    "trainer=gpu_fast": ON_CPU,
}

# Weights that no package carries, checked when the object is made; a finished fit; another metric beside it; a network
# that was distilled from guidance.
UNAVAILABLE = {
    "backbone=controlnet",
    "backbone=module",
    "diffuser=consistency_distillation",
    "extractor=clip",
    "extractor=dinov2",
    "extractor=inception",
    "extractor=timm",
    "extractor=torchvision",
    "guidance=autoguidance",
    "guidance=distilled",
    "metric=clip_score",
    "metric=likelihood",
    "metric=retrieval",
    "metric=spatial",
}

# A hundred million weights and more: made of tensors without numbers.
LARGE = {f"backbone={name}" for name in ("dit_b", "dit_l", "dit_xl", "jit_b")}
LARGE |= {f"backbone=edm2_{name}" for name in ("xs", "s", "m", "l", "xl", "xxl")}
LARGE |= {f"backbone=unet_{side}" for side in (32, 64, 128, 256, 512)}

HYDRA_KEYS = {"_args_", "_convert_", "_partial_", "_recursive_", "_target_"}

# So that a mistake that is not refused fails a test in a second, instead of training.
TINY = ["training.steps=1", "training.warmup=0", "evaluation.samples=4", "trainer.progress=false"]


def group(path: Path) -> str:
    return path.parent.relative_to(CONF).as_posix()


def choice(path: Path) -> str:
    return f"{group(path)}={path.stem}"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@functools.cache
def default_keys() -> set[str]:
    return {str(key) for key in composed()}


@functools.cache
def with_option(path: Path) -> DictConfig:
    words = COMPANIONS.get(choice(path), [])
    # Made when it is needed, for that takes diffusers.
    model = [f"pretrained={checkpoints_made.ddpm()}"] if words is IMPORTED else []
    if choice(path) == "autoencoder=pretrained":
        model = [f"autoencoder.network.folder={checkpoints_made.autoencoder_kl()}"]
    if choice(path) == "condition=imported_text":
        model = [f"pretrained={pipelines_made.of_digits()}"]
    if choice(path) == "metric=clip_score":
        model = [f"evaluation.metrics.clip_score.folder={text_encoders.clip()}"]
    return composed(choice(path), *model, *words)


def package(path: Path) -> str:
    """Where in the config an option's content goes."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    given = first.removeprefix("# @package ") if first.startswith("# @package ") else group(path).replace("/", ".")
    return "" if given == "_global_" else given


def own_node(path: Path) -> Any:
    cfg = with_option(path)
    return OmegaConf.select(cfg, package(path)) if package(path) else cfg


def targets(node: Any) -> Iterator[DictConfig]:
    """Every node below that says what it builds."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node._get_node(key))
    elif isinstance(node, ListConfig):
        for below in node:
            yield from targets(below)


def parameters(node: DictConfig) -> dict[str, inspect.Parameter]:
    signature = inspect.signature(get_object(node._target_))
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: parameter for name, parameter in signature.parameters.items() if parameter.kind in kinds}


def ours(node: DictConfig) -> bool:
    return node._target_.startswith("diffsweep.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_says_in_its_header_what_it_is(path: Path) -> None:
    first, second, *_ = [*path.read_text(encoding="utf-8").splitlines(), "", ""]
    header = second if first.startswith("# @package ") else first
    assert header.startswith("# ")
    assert len(header) > 20


@pytest.mark.parametrize("path", OPTIONS, ids=choice)
def test_every_option_composes_and_builds(path: Path) -> None:
    cfg = with_option(path)
    assert resolved(cfg)
    assert OmegaConf.select(cfg, package(path)) is not None or path.stem == "none"
    if choice(path) in UNAVAILABLE:
        return
    if choice(path) in LARGE:
        with torch.device("meta"):
            x = torch.zeros(2, *cfg.dataset.shape)
            assert make(cfg, "backbone")(x, torch.zeros(2)).shape == x.shape
        return
    components = Components.of(cfg)
    optimizer = instantiate(cfg.optimizer)(components.scoring.model.denoiser.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)
    for logger in (cfg.logger or {}).values():
        assert callable(instantiate(logger))


@pytest.mark.parametrize("path", [CONF / "config.yaml", *OPTIONS], ids=choice)
def test_keys_are_the_constructors_parameters(path: Path) -> None:
    for node in targets(OmegaConf.load(path) if path.parent == CONF else own_node(path)):
        known = parameters(node)
        given = {str(key) for key in node} - HYDRA_KEYS
        takes_any = any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in inspect.signature(get_object(node._target_)).parameters.values()
        )
        assert takes_any or given <= set(known), f"{node._target_} does not take {given - set(known)}"
        if ours(node) and package(path):
            # A default that lives only in Python would escape the signature, and nobody could see it in the YAML.
            partial = node.get("_partial_", False)
            wanted = {
                name for name, parameter in known.items() if not partial or parameter.default is not parameter.empty
            }
            assert wanted <= given, f"{choice(path)} does not list {wanted - given} of {node._target_}"


@pytest.mark.parametrize(("current", "former"), FORMER.items())
def test_a_class_under_its_former_name_is_signed_and_made_as_under_its_own(current: str, former: str) -> None:
    configs = [OmegaConf.create({"part": {"_target_": name, "_partial_": True}}) for name in (current, former)]
    assert cell_signature(configs[0]) == cell_signature(configs[1])
    assert [make(cfg, "part").func for cfg in configs] == [get_object(current)] * 2


def test_defaults_in_python_are_those_of_the_yaml() -> None:
    """Where several options build one class (the samplers), the class's default is the value of one of them."""
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    defaults: dict[tuple[str, str], Any] = {}
    for path in OPTIONS:
        # Experiments and trainer=debug are there to change values.
        for node in targets(own_node(path)) if package(path) else ():
            for name, parameter in parameters(node).items() if ours(node) else ():
                listed = name in node and not OmegaConf.is_interpolation(node, name)
                if parameter.default is parameter.empty or not listed:
                    continue
                defaults[node._target_, name] = canonical(described(parameter.default))
                values[node._target_, name].append(canonical(resolved({"value": plain(node[name])})["value"]))
    assert len(defaults) > 20
    assert {key: default for key, default in defaults.items() if default not in values[key]} == {}


def described(default: Any) -> Any:
    """A default that is an object of ours, as a YAML would describe it."""
    if not is_dataclass(default):
        return default
    described_as = next(
        node._target_
        for path in OPTIONS
        for node in targets(OmegaConf.load(path))
        if get_object(node._target_) is type(default)
    )
    return {"_target_": described_as, **vars(default)}


def plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def test_trainers_differ_in_values_only() -> None:
    keys = {path.stem: set(with_option(path).trainer) for path in TRAINERS}
    assert all(found == keys["cpu"] for found in keys.values())


def test_debug_is_short_and_what_is_asked_for_wins() -> None:
    debug, default = composed("trainer=debug"), composed()
    assert debug.training.steps <= 50 < default.training.steps
    assert debug.training.warmup <= debug.training.steps
    assert debug.evaluation.samples < default.evaluation.samples
    assert debug.trainer == default.trainer
    assert composed("trainer=debug", "training.steps=7").training.steps == 7


@pytest.mark.parametrize("trainer", TRAINERS, ids=choice)
@pytest.mark.parametrize("path", EXPERIMENTS, ids=choice)
def test_every_experiment_builds_at_every_scale(path: Path, trainer: Path) -> None:
    cfg = composed(choice(path), choice(trainer), *COMPANIONS.get(choice(trainer), []))
    assert resolved(cfg)
    Components.of(cfg)
    assert {str(key) for key in cfg} == default_keys(), "an experiment sets a key that nothing reads"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=choice)
def test_debug_is_short_in_every_experiment(path: Path) -> None:
    cfg = composed(choice(path), "trainer=debug")
    assert cfg.training.steps <= 50
    assert cfg.evaluation.samples <= 50


@pytest.mark.parametrize("path", EXPERIMENTS, ids=choice)
def test_what_is_asked_for_wins_over_the_experiment(path: Path) -> None:
    cfg = composed(choice(path), "training.steps=7", "sampler=ddim", "sampler.nfe=3")
    assert (cfg.training.steps, cfg.sampler.nfe) == (7, 3)
    assert cfg.sampler.solver._target_.endswith("Euler")


def named(value: object) -> str:
    """A test's name comes from its overrides, not from the message."""
    return " ".join(value) if isinstance(value, list) and "=" in value[0] else ""


REFUSED = [
    (["backbone=unet", "dataset=mixture"], "backbone=mlp"),
    (["backbone=mlp"], "backbone=unet"),
    (
        ["backbone=module"],
        "backbone.network=null is no torch.nn.Module: set its _target_ to yours; a network",
    ),
    (["backbone=module", "backbone.network={_target_: torch.nn.Identity}"], "Identity cannot be called as a backbone"),
    (["backbone=diffusers", "backbone.layers=0"], "backbone.layers=0 must be a whole number, 1 or more"),
    (["backbone=diffusers", "backbone.down=[Down,Up]"], "Down"),
    (["diffuser=consistency_distillation"], "diffuser.teacher=null"),
    (["diffuser=consistency_distillation", "diffuser.teacher=1a2b3c4d5e6f"], "diffuser.teacher=1a2b3c4d5e6f"),
    (["diffuser=consistency", "diffuser/target=x0"], "choose diffuser/target=edm"),
    (["diffuser=ddpm", "schedule=rectified"], "choose diffuser=v"),
    (["sampler=heun", "sampler/spacing=time", "schedule=rectified"], "choose sampler/spacing=karras"),
    (["sampler.nfe=0"], "sampler.nfe=0"),
    (["sampler.nfe=many"], "sampler.nfe=many"),
    (["sampler.noise.eta=-1"], "sampler.noise.eta=-1"),
    (["sampler=restart", "sampler.noise.repeats=0"], "sampler.noise.repeats=0"),
    (["sampler=lms", "sampler.solver.quantity=x"], "must be x0, eps or v"),
    (["sampler/spacing=given", "sampler.spacing.noises=[1,2]"], "must fall"),
    (["training.steps=-5"], "training.steps=-5"),
    (["training.steps=2.5"], "training.steps=2.5"),
    (["training.batch_size=0"], "training.batch_size=0"),
    (["training.warmup=-1"], "training.warmup=-1"),
    (["training.decay=cosin"], "must be constant, linear or cosine"),
    (["training.clip=0"], "training.clip=0"),
    (["condition=label", "condition.label.drop=1"], "condition.label.drop=1"),
    (["backbone.inputs=2"], "backbone.inputs=2 must be 1"),
    (["backbone.outputs=2"], "backbone.outputs=2 must be 1"),
    (["backbone.width=-4"], "width"),
    (["dataset.sigma_data=-1"], "sigma_data"),
    (["dataset.shape=[1,9,9]"], "dataset.shape"),
    (["seed=abc"], "seed=abc"),
    (["+sampler.order=3"], "order"),
    (["extractor=fashion_mnist"], "extractor"),
    (["ema.decay=2"], "ema.decay=2"),
    (["evaluation.samples=0"], "evaluation.samples=0"),
    (["evaluation.samples=-3"], "evaluation.samples=-3"),
    (["evaluation.batch_size=0"], "evaluation.batch_size"),
    (["evaluation.seed=x"], "evaluation.seed=x"),
    (["optimizer.lr=-1"], "-1"),
    (["optimizer.lr=fast"], "fast"),
    (["trainer.checkpoint_seconds=0"], "trainer.checkpoint_seconds=0"),
    (["trainer.precision=33"], "33"),
]


def refusal(overrides: list[str], folder: Path) -> str:
    cfg = composed(*TINY, f"paths.runs={folder / 'runs'}", *overrides)
    with pytest.raises((ValueError, OSError)) as caught:
        complete(cfg, Run.of(cfg), overrides)
    return str(caught.value)


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=named)
def test_nonsense_is_refused_before_anything_is_written(overrides: list[str], words: str, tmp_path: Path) -> None:
    message = refusal(overrides, tmp_path)
    assert words in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_parts_of_an_objective_inside_another_are_chosen_in_their_place() -> None:
    cfg = composed(
        "diffuser=self_conditioned",
        "diffuser@diffuser.objective=edm",
        "diffuser/times@diffuser.objective.times=adaptive",
        "diffuser/times@diffuser.objective.times.base=lognormal",
        "diffuser/weight@diffuser.objective.weight=learned",
        "diffuser/weight@diffuser.objective.weight.base=edm",
        "backbone.inputs=2",
    )
    fitting = Components.of(cfg).fitting
    assert isinstance(fitting, Fitting)
    objective: Any = fitting.objective.get_submodule("objective")
    assert objective.times.base == LogNormal()
    assert objective.weight.base == EDM(cfg.dataset.sigma_data)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("trainer", ["gpu", "ddp"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(trainer: str, tmp_path: Path) -> None:
    message = refusal([f"trainer={trainer}"], tmp_path)
    assert "trainer.accelerator=gpu" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sampler=dimm"], ["sampler=dimm does not exist: did you mean ddim", "--help"]),
        (["sampler.nef=3"], ["there is no key sampler.nef: did you mean sampler.nfe"]),
        (["lr=0.1"], ["there is no key lr: did you mean optimizer.lr?"]),
        (["backbone=unet", "dataset=mixture"], ["choose backbone=mlp or an image dataset"]),
    ],
    ids=named,
)
def test_a_users_mistake_is_said_without_a_traceback(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    done = forked_runs.run([str(ROOT / "train.py"), *TINY, *overrides], tmp_path, environment, 300)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []
