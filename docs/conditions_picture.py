"""Draw docs/conditions.png: what samples were asked for above what they show, of three finished cells.

    python docs/conditions_picture.py EDGES COARSE LABEL [--runs DIR]

EDGES is a cell of a ControlNet that is told edges, COARSE one of a model that is told a coarser version; with LABEL,
any other cell, a part of real pictures is painted anew.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffsweep import results
from diffsweep.conditioners.picture_map import coarse, edges
from diffsweep.data.examples import Dataset
from diffsweep.results.lookup import find
from diffsweep.runs.instantiate import make
from diffsweep.settings import GivenPictures

PICTURE = Path(__file__).parent / "conditions.png"
COUNT, SCALE, GAP = 16, 2, 6


def main() -> None:
    """Draw samples of the cells that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("edges", "coarse", "label"):
        parser.add_argument(name)
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    cfg = find(options.edges, options.runs).frozen_config()
    dataset: Dataset = make(cfg, "dataset")
    factor = int(find(options.coarse, options.runs).frozen_config().condition.superres.factor)
    real = dataset.load("test").take(torch.arange(COUNT)).x
    floats = real.float() / 255
    rows = [edges(floats), results.sample(options.edges, COUNT, runs=options.runs)]
    rows += [coarse(floats, factor), results.sample(options.coarse, COUNT, runs=options.runs)]
    mask = torch.zeros(real.shape[-2:], dtype=torch.uint8)
    mask[:, real.shape[-1] // 2 :] = 255
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{number}.png") for number in range(COUNT)]
        for path, pixels in zip(paths, real, strict=True):
            Image.fromarray(pixels[0].numpy()).save(path)
        Image.fromarray(mask.numpy()).save(Path(folder) / "mask.png")
        given = GivenPictures(inpaint=paths, mask=str(Path(folder) / "mask.png"))
        painted = results.sample(options.label, COUNT, runs=options.runs, given=given)
    rows += [torch.where(mask.bool(), torch.tensor(128, dtype=torch.uint8), real), painted]
    together(rows).save(PICTURE)
    print(PICTURE)


def together(rows: list[Tensor]) -> Image.Image:
    """Pictures in rows, (N, 1, H, W) each, of which every second is set apart from the next."""
    strips = []
    for number, row in enumerate(rows):
        pixels = row if row.dtype == torch.uint8 else (255 * row.clamp(0, 1)).round().to(torch.uint8)
        strip = torch.nn.functional.pad(pixels, (0, 1), value=255).permute(1, 2, 0, 3).flatten(2)[0]
        gap = GAP if number % 2 else 1
        strips.append(torch.nn.functional.pad(strip, (0, 0, 0, gap), value=255))
    drawn = torch.cat(strips)[:-GAP, :-1].contiguous().numpy()
    picture = Image.fromarray(drawn)
    return picture.resize((SCALE * picture.width, SCALE * picture.height), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
