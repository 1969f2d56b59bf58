"""Samples to look at: one PNG, images side by side in their order, or points in the plane."""

import io
import json
import math
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffsweep.evaluation.whole import write_whole

WIDTH = 800
GAP = 1
GEOMETRY = "diffsweep grid"


def grid(x: Tensor, path: Path) -> None:
    """Write a PNG of `x` to `path`, whole or not at all.

    Args:
        x: uint8 images (N, C, H, W) with C 1 or 3: a near-square grid, row by row, each pixel enlarged by the same
            whole factor so that the picture is at most about 800 pixels wide; or float points (N, 2): a scatter plot.
            The file's text chunk `GEOMETRY` tells where each image lies.
        path: of the PNG; its folder is made.

    Raises:
        ValueError: when `x` is empty or neither of the two.
    """
    if not len(x):
        raise ValueError("there are no samples to draw")
    if x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] in (1, 3):
        content = _images(x.cpu())
    elif x.is_floating_point() and x.ndim == 2 and x.shape[1] == 2:
        content = _points(x.cpu())
    else:
        raise ValueError(
            f"can draw uint8 (N, 1 or 3, H, W) or float (N, 2), not {str(x.dtype).removeprefix('torch.')} "
            f"{tuple(x.shape)}"
        )
    write_whole(Path(path), content)


def _images(x: Tensor) -> bytes:
    count, channels, height, width = x.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = torch.full((rows * columns, channels, height + GAP, width + GAP), 255, dtype=torch.uint8)
    cells[:count, :, :height, :width] = x
    sheet = cells.view(rows, columns, channels, height + GAP, width + GAP).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    factor = max(1, WIDTH // sheet.shape[1])
    sheet = sheet.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
    buffer = io.BytesIO()
    # Whoever reads the file, as a report, can cut the images out again: the rest is a gap or an empty place.
    geometry = {"count": count, "columns": columns, "height": height, "width": width, "gap": GAP, "factor": factor}
    told = PngInfo()
    told.add_text(GEOMETRY, json.dumps(geometry))
    Image.fromarray(sheet.squeeze(2).numpy()).save(buffer, "png", pnginfo=told)
    return buffer.getvalue()


def _points(x: Tensor) -> bytes:
    figure = Figure(figsize=(7, 7), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, alpha=0.5, linewidths=0)
    axes.set_aspect("equal")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
