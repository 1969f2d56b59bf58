"""Activations that are computed again: the same gradients, of less memory."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conditions import labelled, labels_or_none
from diffsweep.backbones import EDM2, DiT, UNet
from diffsweep.runs import stages
from diffsweep.runs.build import Components
from diffsweep.sweep.store.record import Run
from diffsweep.training.activation_checkpointing import checkpoint_activations
from test_device import composed
from tiny import TINY

NETWORKS = {
    "unet": lambda: labelled(UNet((1, 16, 16), width=16, groups=4, blocks=4, dropout=0.2), 3),
    "dit": lambda: labelled(DiT((1, 16, 16), width=32, depth=8, heads=2), 3),
    "dit with skips": lambda: labelled(DiT((1, 16, 16), width=32, depth=8, heads=2, skips=True), 3),
    "edm2": lambda: labelled(EDM2((1, 16, 16), width=16, head=8, blocks=4, dropout=0.2), 3),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def shaken(name: str) -> nn.Module:
    """A network of which no part is silent."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return network.train()


def gradients(network: nn.Module, examples: int = 16) -> dict[str, Tensor]:
    torch.manual_seed(1)
    x, logsnr = torch.randn(examples, 1, 16, 16), torch.linspace(-5, 5, examples)
    network.zero_grad()
    network(x, logsnr, labels_or_none(torch.arange(examples) % 4, 3)).square().mean().backward()
    return {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made meanwhile have taken at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, number: int, size: int) -> None:
        self.seen.discard(number)
        self.live -= size


@each_network
def test_gradients_are_the_same_numbers(name: str) -> None:
    plain, recomputing = shaken(name), shaken(name)
    checkpoint_activations(recomputing)
    names = list(recomputing.state_dict())
    assert names == list(plain.state_dict())
    expected, found = gradients(plain), gradients(recomputing)
    assert expected.keys() == found.keys()
    assert len(found) == len(list(plain.parameters()))
    for weight in expected:
        assert torch.equal(expected[weight], found[weight]), weight


@each_network
def test_the_memory_of_a_step_is_less(name: str) -> None:
    peaks = []
    for recompute in (False, True):
        network = shaken(name)
        if recompute:
            checkpoint_activations(network)
        with PeakMemory() as memory:
            gradients(network, 64)
        peaks.append(memory.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_a_copy_recomputes_with_its_own_weights() -> None:
    network = shaken("dit")
    checkpoint_activations(network)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert any(bool(gradient.any()) for gradient in gradients(other).values())


@pytest.mark.parametrize("how", ["false", "step", "blocks"])
def test_a_training_with_it_ends_with_the_same_weights(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep import compilation

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "options", lambda graphs: {"backend": "aot_eager", "fullgraph": True})
    words = ["dataset=digits", "backbone=dit_tiny", "backbone.depth=2", "training.batch_size=8", "training.steps=3"]
    weights = []
    for more in ([], ["trainer.activation_checkpointing=true", f"trainer.compile={how}"]):
        cfg = composed(*words, f"paths.runs={tmp_path}", "training.warmup=0", "trainer.progress=false", *more)
        run = Run.of(cfg)
        stages.train(cfg, run)
        weights.append(load_file(run.fit.checkpoints / "ema.safetensors"))
    assert len(list(tmp_path.glob("fits/*"))) == 2
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


class Plain(nn.Module):
    """A network that repeats nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layer(x)


def test_a_network_without_blocks_is_refused() -> None:
    own = ["backbone=module", f"backbone.network={{_target_: {Plain.__module__}.Plain}}"]
    words = [word for word in TINY if not word.startswith("backbone")]
    Components.of(composed(*words, *own))
    with pytest.raises(
        ValueError, match=r"^trainer\.activation_checkpointing=true recomputes repeated blocks, and \w+ has none"
    ):
        Components.of(composed(*words, *own, "trainer.activation_checkpointing=true"))
