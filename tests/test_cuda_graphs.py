"""What CUDA graphs ask of a training and a sampling, as far as it can be seen without a GPU.

A graph that is replayed writes into the memory of its last replay: what it gave in an earlier step is gone. Here a
compiled function does the same on a CPU: what it gave before a new step began is overwritten with NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

from diffsweep import compilation
from diffsweep.data.examples import Examples
from diffsweep.runs.build import Components
from diffsweep.scoring.sampling import Sampling
from settings import trainer_settings
from test_device import IMAGES, composed, training
from tiny import TINY


class Replays:
    """Compiles to functions whose results last until the next step begins, as torch's trees of CUDA graphs do.

    A step begins where `torch.compiler.cudagraph_mark_step_begin` says so; before that was ever called, with every call
    in which nothing is differentiated.
    """

    def __init__(self) -> None:
        self.marks = self.calls = 0
        self.step = (0, 0)
        self.given: list[Tensor] = []
        self.overwritten = 0

    def mark(self) -> None:
        self.marks += 1

    def begin(self) -> None:
        """Overwrite what was given before this step."""
        self.calls += not torch.is_grad_enabled()
        now = (self.marks, 0 if self.marks else self.calls)
        if now == self.step:
            return
        self.step = now
        with torch.inference_mode():
            for old in self.given:
                old.fill_(torch.nan)
                self.overwritten += 1
        self.given = []

    def compiler(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        def replay(*arguments: Any) -> Any:
            self.begin()
            results = graph(*arguments)
            own = {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)}
            for x in results:
                if isinstance(x, Tensor) and x.is_floating_point() and x.untyped_storage().data_ptr() not in own:
                    self.given.append(x.detach())
            return results

        return make_boxed_func(replay)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    torch._dynamo.reset()
    found = Replays()
    backend = aot_autograd(fw_compiler=found.compiler, bw_compiler=found.compiler, inference_compiler=found.compiler)
    monkeypatch.setattr(compilation, "options", lambda graphs: {"backend": backend} if graphs else {})
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", found.mark)
    return found


NETWORKS = {
    "unet": IMAGES,
    "mlp": [*TINY],
    "self-conditioning": [*TINY, "diffuser=self_conditioned"],
}


def steps(overrides: list[str], **settings: Any) -> list[Tensor]:
    """Losses and last weights of some steps."""
    cfg = composed(*overrides, "training.steps=4")
    source = Components.of(cfg).scoring.model.dataset.load("train")
    few = Examples(source.take(torch.arange(40)).x, source.labels[:40])
    module, batches = training(cfg, trainer_settings(**settings))
    optimizer = module.optimizer(module.parameters())
    losses = []
    for number, batch in enumerate(batches(few)):
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number)
        # As Lightning does: the loss that callbacks see is a copy, and gradients go between loss and gradient.
        losses.append(loss.detach().clone())
        module.optimizer_zero_grad(0, number, optimizer)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
    return [*losses, *(weight.detach() for weight in module.parameters())]


@pytest.mark.parametrize(
    ("name", "how"), [("unet", "step"), ("unet", "blocks"), ("mlp", True), ("self-conditioning", "step")]
)
def test_a_training_keeps_nothing_that_a_later_step_overwrites(name: str, how: Any, replays: Replays) -> None:
    plain = steps(NETWORKS[name])
    found = steps(NETWORKS[name], compile=how, cuda_graphs=True)
    assert replays.overwritten
    for a, b in zip(plain, found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "how"), [("recommended", "step"), ("recommended", "blocks"), ("ddpm", "step"), ("unipc", "step")]
)
def test_a_sampler_keeps_nothing_that_a_later_call_overwrites(sampler: str, how: Any, replays: Replays) -> None:
    cfg = composed(*IMAGES, f"sampler={sampler}", "sampler.nfe=6", "condition=label", "guidance=cfg")
    samples = []
    for settings in ({}, {"compile": how, "cuda_graphs": True}):
        scoring = Components.of(cfg).scoring
        shaken = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in scoring.model.denoiser.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=shaken))
        sampling = Sampling(scoring.model, scoring.sampler, 0, scoring.guidance, trainer=trainer_settings(**settings))
        with torch.inference_mode():
            samples.append(sampling.integrate(torch.arange(4)))
    assert replays.overwritten
    assert torch.allclose(*samples, atol=1e-4)


def test_they_are_refused_where_there_is_no_gpu_to_record_on() -> None:
    words = ["trainer.compile=step", "trainer.cuda_graphs=true"]
    with pytest.raises(ValueError, match=r"^trainer\.cuda_graphs=true records the kernels of a GPU, and this is cpu"):
        Components.of(composed(*TINY, *words))
