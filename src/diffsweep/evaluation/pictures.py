"""Samples to look at: one PNG, images side by side in their order, or points in the plane; and how they came about."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffsweep.files import write_atomic
from diffsweep.grid_geometry import CHUNK, GridGeometry

WIDTH = 800
GAP = 1

# Of an animation: milliseconds that all frames but the last are shown, and the last one.
_WAY, _LAST = 3000, 2000


def grid(x: Tensor, path: Path) -> None:
    """Write a PNG of `x` to `path`, whole or not at all.

    Args:
        x: uint8 images (N, C, H, W) with C 1 or 3: a near-square grid, row by row, each pixel enlarged by the same
            whole factor so that the picture is at most about 800 pixels wide; or float points (N, 2): a scatter plot.
            The file carries its `GridGeometry`.
        path: of the PNG; its folder is made.

    Raises:
        ValueError: when `x` is empty or neither of the two.
    """
    _check(x)
    write_atomic(Path(path), _images(x.cpu()) if x.ndim == 4 else _points(x.cpu()))


def animation(frames: Sequence[tuple[Tensor, Tensor]], path: Path) -> None:
    """Write a GIF that goes through `frames` again and again, whole or not at all.

    Args:
        frames: what is shown side by side, left and right, each as `grid` takes it and all of one shape; several.
        path: of the GIF; its folder is made.

    Raises:
        ValueError: for what `grid` does not take.
    """
    for x in (x for frame in frames for x in frame):
        _check(x)
    drawn = list(_sheets(frames) if frames[0][0].ndim == 4 else _scatters(frames))
    buffer = io.BytesIO()
    durations = [max(50, _WAY // len(drawn))] * (len(drawn) - 1) + [_LAST]
    drawn[0].save(buffer, "gif", save_all=True, append_images=drawn[1:], duration=durations, loop=0)
    write_atomic(Path(path), buffer.getvalue())


def _check(x: Tensor) -> None:
    if not len(x):
        raise ValueError("there are no samples to draw")
    images = x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] in (1, 3)
    if not images and not (x.is_floating_point() and x.ndim == 2 and x.shape[1] == 2):
        raise ValueError(
            f"can draw uint8 (N, 1 or 3, H, W) or float (N, 2), not {str(x.dtype).removeprefix('torch.')} "
            f"{tuple(x.shape)}"
        )


def _images(x: Tensor) -> bytes:
    image, columns, factor = _sheet(x, WIDTH)
    buffer = io.BytesIO()
    count, _, height, width = x.shape
    # Whoever reads the file, as a report, can cut the images out again: the rest is a gap or an empty place.
    geometry = GridGeometry(count, columns, height, width, GAP, factor)
    text = PngInfo()
    text.add_text(CHUNK, geometry.text())
    image.save(buffer, "png", pnginfo=text)
    return buffer.getvalue()


def _sheet(x: Tensor, most: int) -> tuple[Image.Image, int, int]:
    """All images side by side, `most` pixels wide if they fit; the number of columns; the enlargement."""
    count, channels, height, width = x.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = torch.full((rows * columns, channels, height + GAP, width + GAP), 255, dtype=torch.uint8)
    cells[:count, :, :height, :width] = x
    sheet = cells.view(rows, columns, channels, height + GAP, width + GAP).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    factor = max(1, most // sheet.shape[1])
    sheet = sheet.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
    return Image.fromarray(sheet.squeeze(2).numpy()), columns, factor


def _sheets(frames: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Image.Image]:
    for pair in frames:
        left, right = (_sheet(x.cpu(), WIDTH // 2)[0] for x in pair)
        both = Image.new(left.mode, (left.width + right.width + 8, left.height), "white")
        both.paste(left, (0, 0))
        both.paste(right, (left.width + 8, 0))
        # GIF has 256 colours: enough for any grey, and for the colours of one frame without dots.
        yield both if both.mode == "L" else both.quantize(256, dither=Image.Dither.NONE)


def _points(x: Tensor) -> bytes:
    figure = Figure(figsize=(7, 7), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, alpha=0.5, linewidths=0)
    axes.set_aspect("equal")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _scatters(frames: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Image.Image]:
    figure = Figure(figsize=(8, 4), dpi=100, layout="tight")
    canvas = FigureCanvasAgg(figure)
    # One scale for all frames, which a few points far off must not decide.
    ends = torch.cat([*frames[0], *frames[-1]]).abs().flatten()
    reach = 1.1 * float(ends.sort().values[int(0.999 * (len(ends) - 1))]) or 1.0
    clouds = []
    for axes, x in zip(figure.subplots(1, 2), frames[0], strict=True):
        clouds.append(axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, alpha=0.5, linewidths=0))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    for pair in frames:
        for cloud, x in zip(clouds, pair, strict=True):
            cloud.set_offsets(x.cpu().numpy())
        canvas.draw()
        yield (
            Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
            .convert("RGB")
            .quantize(64, dither=Image.Dither.NONE)
        )
