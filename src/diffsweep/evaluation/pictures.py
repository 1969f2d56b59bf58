"""Samples to look at: a picture of each side by side, or points in the plane; and how they came about."""

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

# Milliseconds that a frame of a video is shown.
FRAME = 120

# Of an animation: milliseconds that all frames but the last are shown, and the last one.
_WAY, _LAST = 3000, 2000


def grid(x: Tensor, path: Path, frames: int = 1) -> None:
    """Write a PNG of pictures to `path`, whole or not at all: a near-square grid, row by row.

    Each pixel is enlarged by the same whole factor so that the file is at most about 800 pixels wide. It carries its
    `GridGeometry`.

    Args:
        x: uint8 (N, C, H, W) with C 1 or 3.
        path: of the PNG; its folder is made.
        frames: how many frames lie side by side in each picture.

    Raises:
        ValueError: when there are none, or they are no such pictures.
    """
    _check_pictures(x)
    image, columns, factor = _sheet(x.cpu(), WIDTH)
    count, _, height, width = x.shape
    # Whoever reads the file, as a report, can cut the images out again: the rest is a gap or an empty place.
    geometry = GridGeometry(count, columns, height, width, GAP, factor, frames)
    text = PngInfo()
    text.add_text(CHUNK, geometry.text())
    buffer = io.BytesIO()
    image.save(buffer, "png", pnginfo=text)
    write_atomic(Path(path), buffer.getvalue())


def scatter(x: Tensor, path: Path) -> None:
    """Write a PNG of points, float (N, 2), to `path`, whole or not at all; raises ValueError for anything else."""
    _check_points(x)
    write_atomic(Path(path), _points(x.cpu()))


def video(x: Tensor, path: Path, width: int = WIDTH) -> None:
    """Write a GIF of videos side by side, which run again and again, whole or not at all.

    Args:
        x: uint8 (N, T, C, H, W) with C 1 or 3.
        path: of the GIF; its folder is made.
        width: pixels that it is enlarged to, at most.

    Raises:
        ValueError: when there are none, or they are no such videos.
    """
    _check_pictures(x.flatten(0, 1))
    _write_gif([_sheet(frame, width)[0] for frame in x.cpu().unbind(1)], [FRAME] * x.shape[1], path)


def animation(frames: Sequence[tuple[Tensor, Tensor]], path: Path) -> None:
    """Write a GIF that goes through `frames` again and again, whole or not at all.

    Args:
        frames: what is shown side by side, left and right, each as `grid` takes it and all of one shape; several.
        path: of the GIF; its folder is made.

    Raises:
        ValueError: for what `grid` does not take.
    """
    for x in (x for frame in frames for x in frame):
        _check_pictures(x)
    _write_gif(list(_sheets(frames)), _durations(len(frames)), path)


def scatter_animation(frames: Sequence[tuple[Tensor, Tensor]], path: Path) -> None:
    """The same of points, each as `scatter` takes them."""
    for x in (x for frame in frames for x in frame):
        _check_points(x)
    _write_gif(list(_scatters(frames)), _durations(len(frames)), path)


def _durations(count: int) -> list[int]:
    return [max(50, _WAY // count)] * (count - 1) + [_LAST]


def _write_gif(drawn: Sequence[Image.Image], durations: list[int], path: Path) -> None:
    # GIF has 256 colours: enough for any grey, and for the colours of one frame without dots.
    reduced = [one if one.mode in "LP" else one.quantize(256, dither=Image.Dither.NONE) for one in drawn]
    buffer = io.BytesIO()
    reduced[0].save(buffer, "gif", save_all=True, append_images=reduced[1:], duration=durations, loop=0)
    write_atomic(Path(path), buffer.getvalue())


def _check_pictures(x: Tensor) -> None:
    _check_number(x)
    if x.dtype != torch.uint8 or len(x.shape) != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"can draw pictures uint8 (N, 1 or 3, H, W), not {_described(x)}")


def _check_points(x: Tensor) -> None:
    _check_number(x)
    if not x.is_floating_point() or x.shape[1:] != (2,):
        raise ValueError(f"can draw points, float (N, 2), not {_described(x)}")


def _check_number(x: Tensor) -> None:
    if not len(x):
        raise ValueError("there are no samples to draw")


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"


def _sheet(x: Tensor, most: int) -> tuple[Image.Image, int, int]:
    """All images side by side, `most` pixels wide if they fit; the number of columns; the enlargement."""
    count, channels, height, width = x.shape
    # As many as make the whole about square.
    columns = min(count, max(1, math.ceil(math.sqrt(count * (height + GAP) / (width + GAP)))))
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
        yield both


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
