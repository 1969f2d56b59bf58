"""Every backbone: a tensor like x, zero at first, told of log-SNR and labels, and refusing in the user's words."""

import functools
import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import Tensor, nn

from conditions import labelled, labels_or_none
from diffsweep.backbones import EDM2, MLP, DiT, UNet
from diffsweep.backbones.conditioning import fourier
from diffsweep.backbones.dit import angles, turn
from diffsweep.backbones.edm2 import Block, Conditioning, Convolution
from diffsweep.backbones.unet import depth_to_space, space_to_depth
from diffsweep.diffusion import Diffuser
from diffsweep.diffusion.loss import SquaredError
from diffsweep.diffusion.oracle import GaussianMixture
from diffsweep.diffusion.schedules import Cosine
from diffsweep.diffusion.target import V
from diffsweep.diffusion.times import Uniform
from diffsweep.diffusion.weight import Output

CONF = Path(__file__).parents[1] / "conf" / "backbone"


def unet(shape: tuple[int, ...] = (1, 8, 8), **choices: object) -> UNet:
    return UNet(shape, **{"width": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4, **choices})  # type: ignore[arg-type]


def signal(shape: tuple[int, ...] = (1, 24), **choices: object) -> UNet:
    return unet(shape, **choices)


def volume(shape: tuple[int, ...] = (1, 4, 6, 6), **choices: object) -> UNet:
    return unet(shape, **choices)


def mlp(shape: tuple[int, ...] = (2,), **choices: object) -> MLP:
    return MLP(shape, **{"width": 16, "depth": 2, **choices})  # type: ignore[arg-type]


def dit(shape: tuple[int, ...] = (1, 8, 8), **choices: object) -> DiT:
    return DiT(shape, **{"width": 16, "depth": 3, "heads": 2, "bottleneck": 3, "skips": True, **choices})  # type: ignore[arg-type]


def edm2(shape: tuple[int, ...] = (1, 8, 8), **choices: object) -> EDM2:
    return EDM2(shape, **{"width": 8, "multipliers": [1, 2], "blocks": 1, "head": 8, **choices})  # type: ignore[arg-type]


EVERY = pytest.mark.parametrize("build", [unet, mlp, signal, volume, dit, edm2])
Network = UNet | MLP | DiT | EDM2
Build = Callable[..., Network]


def shaken(model: nn.Module) -> nn.Module:
    """The model with every weight moved, so that nothing is silent any more."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


def batch(model: nn.Module, n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    assert isinstance(model, Network)
    return torch.randn(n, *model.shape, generator=generator), torch.linspace(-5, 5, n)


SHAPES = [
    (unet, (1, 8, 8), {}),
    (unet, (1, 28, 28), {"multipliers": [1, 1, 2, 2]}),
    (unet, (1, 28, 28), {"patch": 2, "multipliers": [1, 2]}),
    (unet, (3, 32, 32), {"patch": 4, "attention": [0, 1]}),
    (unet, (3, 64, 64), {"patch": 2, "multipliers": [1, 1, 2], "attention": []}),
    (unet, (2, 12, 20), {"multipliers": [1, 2, 2]}),
    (unet, (1, 7, 5), {"multipliers": [1, 2, 2]}),
    (unet, (1, 2, 3), {"multipliers": [1]}),
    (unet, (1, 64), {"patch": 4, "multipliers": [1, 2, 2], "attention": [0, -1]}),
    (unet, (2, 45), {"multipliers": [1, 2, 2]}),
    (unet, (3, 8, 16, 16), {"patch": 2, "attention": [-1]}),
    (unet, (1, 3, 7, 5), {"multipliers": [1, 2]}),
    (dit, (1, 8, 8), {"skips": False, "bottleneck": None}),
    (dit, (3, 28, 20), {"patch": 4}),
    (dit, (1, 7, 5), {"patch": 1, "depth": 1}),
    (dit, (2, 32, 32), {"patch": 16, "depth": 4}),
    (edm2, (1, 8, 8), {}),
    (edm2, (3, 28, 28), {"multipliers": [1, 1, 2], "attention": [0, -1], "blocks": 2}),
    (edm2, (1, 7, 5), {"multipliers": [1, 2, 2], "attention": []}),
    (edm2, (2, 4, 6), {"multipliers": [2]}),
]


@pytest.mark.parametrize(("build", "shape", "choices"), SHAPES)
def test_a_network_fits_every_size_and_starts_at_zero(
    build: Build, shape: tuple[int, ...], choices: dict[str, object]
) -> None:
    model = build(shape, **choices)
    x, logsnr = batch(model)
    y = model(x, logsnr)
    assert y.shape == x.shape
    assert not y.any()
    assert shaken(model)(x, logsnr).std() > 0.01


def test_an_image_as_one_slice_of_a_volume_or_as_a_row_goes_the_same_way() -> None:
    """A network of two dimensions is one of three, or of one, whose kernels have zeros beside the middle."""
    x, logsnr = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([-1.0, 2.0])
    row = shaken(unet((1, 8), multipliers=[1], attention=[0]))
    slice_of = {
        name: weight[:, :, None] * torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3, 1)
        if weight.ndim == 3 and weight.shape[2] == 3
        else weight[:, :, None]
        if weight.ndim == 3
        else weight
        for name, weight in row.state_dict().items()
    }
    image = unet((1, 1, 8), multipliers=[1], attention=[0]).eval()
    image.load_state_dict(slice_of)
    torch.testing.assert_close(image(x[:, :, None], logsnr)[:, :, 0], row(x, logsnr), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 3, 4, 6), (2, 3, 4, 6, 2)])
def test_cubes_become_channels_as_in_pixel_unshuffle_and_back(shape: tuple[int, ...]) -> None:
    x = torch.arange(math.prod(shape)).view(shape).float()
    cut = space_to_depth(x, 2)
    assert cut.shape == (2, 3 * 2 ** (len(shape) - 2), *(size // 2 for size in shape[2:]))
    assert depth_to_space(cut, 2).equal(x)
    # Of two axes it is torch's own; of the others the first axis is the slowest as well.
    flat = x.flatten(0, 1)[0].flatten()
    assert cut[0, 0].flatten()[0] == flat[0]
    assert cut[0, 1].flatten()[0] == x[(0, 0, *[0] * (len(shape) - 3), 1)]
    assert cut[0, 2 ** (len(shape) - 2) - 1].flatten()[0] == x[(0, 0, *[1] * (len(shape) - 2))]


@pytest.mark.parametrize("dimensions", [1, 2, 7])
def test_mlp_fits_every_dimension_and_starts_at_zero(dimensions: int) -> None:
    model = mlp((dimensions,))
    x, logsnr = batch(model)
    assert model(x, logsnr).shape == x.shape
    assert not model(x, logsnr).any()
    assert shaken(model)(x, logsnr).std() > 0.01


@EVERY
def test_gradient_reaches_every_weight(build: Build) -> None:
    model = labelled(build(), 3)
    shaken(model)
    x, logsnr = batch(model.backbone)
    model(x, logsnr, labels_or_none(torch.tensor([0, 1, 3]), 3)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


@EVERY
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 2), (3, 2)])
def test_several_tensors_go_in_and_come_out(build: Build, inputs: int, outputs: int) -> None:
    model = build(inputs=inputs, outputs=outputs)
    x, logsnr = batch(model)
    channels = build().shape[0]
    assert x.shape[1] == inputs * channels
    y = model(x, logsnr)
    assert y.shape == (len(x), outputs * channels, *x.shape[2:])
    assert not y.any()
    shaken(model)
    y = model(x, logsnr)
    for i in range(inputs):
        changed = x.clone()
        changed[:, i * channels : (i + 1) * channels] += 1
        assert not model(changed, logsnr).allclose(y, atol=1e-4)
    parts = y.chunk(outputs, dim=1)
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(parts) for b in parts[:i])


@EVERY
def test_the_level_matters_and_may_be_infinite(build: Build) -> None:
    model = build()
    shaken(model)
    x, _ = batch(model, 1)
    levels = [-torch.inf, -20.0, -1.0, 0.0, 0.1, 20.0, torch.inf]
    clean, low, *middle, high, noisy = (model(x, torch.tensor([level])) for level in levels)
    assert clean.isfinite().all()
    assert clean.equal(low)
    assert noisy.equal(high)
    outputs = [low, *middle, high]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i])


@EVERY
def test_labels_matter_and_so_does_none(build: Build) -> None:
    model = labelled(build(), 3)
    shaken(model)
    x, logsnr = batch(model.backbone)
    outputs = [model(x, logsnr, labels_or_none(torch.full((3,), label), 3)) for label in range(4)]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i])
    assert model(x, logsnr).equal(outputs[3])


@EVERY
def test_an_example_does_not_depend_on_its_batch(build: Build) -> None:
    model = labelled(build() if build in (mlp, dit) else build(dropout=0.1), 2)
    shaken(model).double()
    x, logsnr = batch(model.backbone, 5)
    x, labels = x.double(), labels_or_none(torch.tensor([0, 1, 2, 0, 1]), 2)
    together = model(x, logsnr, labels)
    alone = torch.cat([model(x[i : i + 1], logsnr[i : i + 1], labels.take(slice(i, i + 1))) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    assert together.equal(model(x, logsnr, labels))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_gives_about_the_same(build: Build, dtype: torch.dtype) -> None:
    model = build()
    shaken(model)
    x, logsnr = batch(model)
    expected = model(x, logsnr)
    y = model.to(dtype)(x.to(dtype), logsnr)
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1 * expected.abs().max().item()
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=tolerance)


@EVERY
def test_one_graph_without_a_break(build: Build) -> None:
    model = labelled(build(), 2)
    shaken(model)
    x, logsnr = batch(model.backbone)
    # Networks of all kinds share the code around them, and versions of one code are limited.
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    told = labels_or_none(torch.arange(len(x)) % 3, 2)
    torch.testing.assert_close(compiled(x, logsnr, told), model(x, logsnr, told))
    torch.testing.assert_close(compiled(x, logsnr), model(x, logsnr))


@EVERY
def test_one_seed_gives_one_network(build: Build) -> None:
    torch.manual_seed(3)
    first = build().state_dict()
    torch.manual_seed(3)
    second = build().state_dict()
    assert all(first[name].equal(second[name]) for name in first)


def test_features_of_any_level_are_finite_and_single_precision_at_least() -> None:
    levels = torch.tensor([-torch.inf, -1e30, 0, 1e30, torch.inf])
    assert fourier(levels, 8).isfinite().all()
    assert fourier(levels.half(), 8).dtype == torch.float32
    assert fourier(levels.double(), 7).shape == (5, 6)


@pytest.mark.parametrize(
    ("build", "shape", "choices", "words"),
    [
        (unet, (2,), {}, r"data are points of shape \(2,\): choose backbone=mlp or an image dataset"),
        (unet, (1, 2, 2, 2, 2), {}, r"one to three sizes, but the data are examples of shape \(1, 2, 2, 2, 2\)"),
        (unet, (1, 8, 6, 6), {"patch": 4}, "^patch=4 does not divide examples of shape 8 x 6 x 6"),
        (mlp, (1, 8, 8), {}, r"data are examples of shape \(1, 8, 8\): choose backbone=unet or a dataset of points"),
        (unet, (1, 8, 8), {"width": 0}, "^width=0 must be a whole number, 1 or more"),
        (unet, (1, 8, 8), {"width": -4}, "width=-4 must be a whole number"),
        (unet, (1, 8, 8), {"width": 8.5}, "width=8.5 must be a whole number"),
        (unet, (1, 8, 8), {"width": 10}, "^width=10 is not a multiple of groups=4"),
        (unet, (1, 8, 8), {"blocks": 0}, "^blocks"),
        (unet, (1, 8, 8), {"dropout": 1.0}, "^dropout"),
        (unet, (1, 28, 28), {"patch": 3}, "^patch=3 does not divide examples of shape 28 x 28"),
        (unet, (1, 8, 8), {"multipliers": []}, "^multipliers=.. is empty"),
        (unet, (1, 8, 8), {"multipliers": [1, 0]}, "^multipliers"),
        (unet, (1, 8, 8), {"multipliers": [1, 1, 1, 1, 1]}, "below one position: give fewer multipliers"),
        (unet, (1, 8, 8), {"attention": [2]}, "names level 2, but levels go from 0 to 1"),
        (unet, (1, 8, 8), {"heads": 3}, "^heads=3 does not divide the 16 channels"),
        (dit, (2,), {}, r"^backbone=dit takes images .* but the data are of shape \(2,\): choose backbone=mlp or unet"),
        (dit, (1, 28, 28), {"patch": 3}, "^patch=3 does not divide images of 28 x 28"),
        (dit, (1, 8, 8), {"width": 12}, "^width=12 must be a multiple of 4 times heads=2"),
        (dit, (1, 8, 8), {"depth": 0}, "^depth"),
        (dit, (1, 8, 8), {"bottleneck": 0}, "^bottleneck=0 must be a whole number"),
        (dit, (1, 8, 8), {"skips": 1}, "^skips=1 must be true or false"),
        (
            edm2,
            (1, 64),
            {},
            r"^backbone=edm2 takes images .* but the data are of shape \(1, 64\): choose backbone=mlp or",
        ),
        (edm2, (1, 8, 8), {"multipliers": [1, 1, 1, 1, 1]}, "below one position: give fewer multipliers"),
        (edm2, (1, 8, 8), {"attention": [2]}, "names level 2, but levels go from 0 to 1"),
        (edm2, (1, 8, 8), {"width": 10, "head": 6}, "^head=6 does not divide the 20 channels"),
        (edm2, (1, 8, 8), {"dropout": 1.0}, "^dropout"),
        (mlp, (2,), {"width": 1}, "^width"),
        (mlp, (2,), {"depth": 0}, "^depth"),
        (mlp, (2,), {"inputs": 0}, "^inputs=0 must be a whole number, 1 or more"),
        (unet, (1, 8, 8), {"outputs": 1.5}, "^outputs=1.5 must be a whole number, 1 or more"),
    ],
)
def test_refusals(build: Build, shape: tuple[int, ...], choices: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        build(shape, **choices)
    assert "\n" not in str(refusal.value)


@EVERY
def test_refuses_shapes_it_was_not_built_for(build: Build) -> None:
    model = build()
    x, logsnr = batch(model)
    with pytest.raises(ValueError, match="was built for"):
        model(x.repeat_interleave(2, dim=-1), logsnr)


def option(name: str) -> dict[str, object]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "millions"), [("dit_s", 32.96), ("dit_b", 130.51), ("dit_l", 458.10), ("dit_xl", 675.13)]
)
def test_sizes_of_dit_have_the_published_numbers_of_weights(name: str, millions: float) -> None:
    """Of table 1 and the code of arXiv 2212.09748: latents of 4 x 32 x 32, 1,000 classes, a learned variance."""
    assert weights(name, (4, 32, 32), outputs=2) == pytest.approx(millions * 1e6, rel=0.003)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("xs", 124.7), ("s", 280.2), ("m", 497.8), ("l", 777.5), ("xl", 1119.4), ("xxl", 1523.2)],
)
def test_sizes_of_edm2_have_the_published_numbers_of_weights(name: str, millions: float) -> None:
    """Of table 2 and the code of arXiv 2312.02696: latents of 4 x 64 x 64, 1,000 classes (and here "no label")."""
    assert weights(f"edm2_{name}", (4, 64, 64)) == pytest.approx(millions * 1e6, rel=0.001)


def weights(name: str, shape: tuple[int, ...], **changes: object) -> int:
    """How many weights an option has for data of a shape with 1,000 labels."""
    with torch.device("meta"):
        model = labelled(instantiate(option(name) | {"shape": list(shape), **changes}), 1000)
    return sum(weight.numel() for weight in model.parameters())


def test_turned_queries_and_keys_meet_by_their_distance_alone() -> None:
    stream = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=stream, dtype=torch.float64)
    turns = angles(6, 7, 8).double()
    at = {(row, column): turns[row * 7 + column] for row in range(6) for column in range(7)}

    def score(one: tuple[int, int], other: tuple[int, int]) -> Tensor:
        return turn(q, at[one].cos(), at[one].sin()) @ turn(k, at[other].cos(), at[other].sin())

    torch.testing.assert_close(score((0, 0), (2, 1)), score((3, 5), (5, 6)))
    assert abs(score((0, 0), (2, 1)) - score((0, 0), (1, 2))) > 0.01
    assert abs(score((0, 0), (2, 1)) - q @ k) > 0.01


@pytest.mark.parametrize(("name", "kind"), [("unet", UNet), ("mlp", MLP), ("dit", DiT), ("edm2", EDM2)])
def test_yaml_lists_every_parameter_with_the_constructors_default(name: str, kind: type[nn.Module]) -> None:
    choices = option(name)
    assert choices.pop("_target_") == f"diffsweep.backbones.{kind.__name__}"
    assert choices.pop("shape") == "${space:shape}"
    defaults = {key: parameter.default for key, parameter in signature(kind).parameters.items() if key != "shape"}
    assert choices == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def magnitude(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def test_edm2_keeps_the_magnitude_of_what_goes_through_it() -> None:
    torch.manual_seed(0)
    model = labelled(edm2((3, 16, 16), width=64, multipliers=[1, 2, 2], blocks=2, head=64), 4)
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, Block)):
            block.scale_gain.fill_(0.2)
    found: dict[str, float] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        found[name] = magnitude(y)

    for name, module in model.named_modules():
        if isinstance(module, Block | Conditioning | Convolution):
            module.register_forward_hook(functools.partial(note, name))
    n = 64
    x = torch.randn(n, 3, 16, 16)
    # As at the start of a training, the result is silent: else it would be as large as the rest.
    assert not model(x, torch.linspace(-6, 6, n), labels_or_none(torch.arange(n) % 5, 4)).any()
    blocks = {name: found[name] for name, module in model.named_modules() if isinstance(module, Block)}
    assert len(blocks) == 2 + 3 + 3 + 2 + 3 + 4 + 4
    assert min(blocks.values()) > 0.8, blocks
    assert max(blocks.values()) < 1.2, blocks
    assert found["backbone.enter"] == pytest.approx(1, abs=0.15)
    assert found["backbone.conditioning"] == pytest.approx(1, abs=0.2)


def test_edm2_sets_weights_back_to_unit_length_at_a_step_of_training_only() -> None:
    model = edm2()
    shaken(model)
    x, logsnr = batch(model)
    before = [weight.clone() for weight in model.parameters()]
    expected = model.eval()(x, logsnr)
    assert all(map(torch.equal, before, model.parameters()))
    torch.testing.assert_close(model.train()(x, logsnr), expected, rtol=1e-3, atol=1e-4)
    layers = [module for module in model.modules() if isinstance(module, Convolution)]
    for layer in layers:
        rows = layer.weight.flatten(1).square().mean(1).sqrt()
        torch.testing.assert_close(rows, torch.ones_like(rows), rtol=2e-4, atol=0)
    # The gradient has no part along the weight, so that a step only turns it.
    (model(x, logsnr) * x).sum().backward()
    weight = layers[2].weight
    assert weight.grad is not None
    along = (weight.grad.flatten(1) * weight.flatten(1)).sum(1).abs()
    assert (along < 1e-3 * weight.grad.flatten(1).norm(dim=1) * weight.flatten(1).norm(dim=1)).all()


MEANS = torch.randn(4, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
TARGET = GaussianMixture(torch.full((4,), 0.25, dtype=torch.float64), MEANS, torch.full((4,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("build", "choices"),
    [
        (mlp, {"width": 64, "depth": 2}),
        (unet, {}),
        (dit, {"width": 32, "depth": 2}),
        (edm2, {"attention": []}),
    ],
)
def test_a_short_training_beats_the_best_linear_answer(build: Build, choices: dict[str, object]) -> None:
    """Against the exact denoiser of four Gaussians in 16 dimensions, taken as images of 4 x 4."""
    torch.manual_seed(0)
    shape = (16,) if build is mlp else (1, 4, 4)
    schedule = Cosine()
    diffuser = Diffuser(V(), Uniform(), Output(), SquaredError())
    denoiser = diffuser.build(build(shape, **choices), schedule, 1.0)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2 if build is edm2 else 3e-3)
    for _ in range(150):
        for group in optimizer.param_groups:
            group["lr"] *= 0.98
        x0 = TARGET.sample(64).float().view(-1, *shape)
        optimizer.zero_grad()
        diffuser(denoiser, x0).mean().backward()
        optimizer.step()
    denoiser.eval()
    x0, error, trivial = TARGET.sample(1000).float(), 0.0, 0.0
    mean, variance = MEANS.float().mean(0), float(TARGET.sample(4000).var(0).mean())
    for t in (0.3, 0.5, 0.7):
        level = schedule.level(t)
        x = level.alpha * x0 + level.sigma * torch.randn_like(x0)
        exact = TARGET(x, level)
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        linear = mean + gain * (x - level.alpha * mean)
        with torch.no_grad():
            found = denoiser(x.view(-1, *shape), level).flatten(1)
        error, trivial = error + magnitude(found - exact) ** 2, trivial + magnitude(linear - exact) ** 2
    assert error < 0.75 * trivial, (error, trivial)
