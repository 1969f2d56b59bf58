"""Anybody's images as uint8: a folder of pictures, or an array in an .npz or .npy file, without guessing.

A value that could mean two things is refused, not interpreted: floats (is it [0, 1] or [-1, 1]? rounded or cut off?),
16 bits, transparency, a picture that says it lies on its side, axes that could stand in two orders. So equal pixels
have equal numbers, whoever wrote them.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import math
import os
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import torch
from PIL import ExifTags, Image
from torch import Tensor
from tqdm import tqdm

from diffsweep.mistakes import one_of, whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CORRUPT = ("refuse", "skip")

# Of the files that are refused for one reason, as many are named.
_NAMED = 3

_TO_UINT8 = "(x.clip(0, 1) * 255).round().astype('uint8'), or ((x.clip(-1, 1) + 1) * 127.5) if that is its range"


@dataclass(frozen=True, eq=False)
class Images:
    """Images that came from outside.

    Attributes:
        x: uint8 (N, C, H, W) in 0..255, C 1 or 3.
        skipped: corrupt files that were left out.
        ignored: files in the folder that are no pictures by their names.
        resize: how they were brought to one size, `none` if they were not.
        class_labels: what each shows, int64 (N,), if that came with them.
    """

    x: Tensor
    skipped: int = 0
    ignored: int = 0
    resize: str = "none"
    class_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (C, H, W)."""
        return tuple(self.x.shape[1:])

    @property
    def labels(self) -> Tensor:
        """What they show, int64 (N,): all 0 where no labels came with them."""
        return torch.zeros(len(self), dtype=torch.int64) if self.class_labels is None else self.class_labels

    def digest(self) -> str:
        """SHA-256 (hex) over dtype, shape, values and labels, in their order; names and formats do not matter."""
        sha = hashlib.sha256(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        for values in (self.x, *([] if self.class_labels is None else [self.class_labels])):
            sha.update(values.contiguous().numpy().data.cast("B") if values.numel() else b"")
        return sha.hexdigest()

    def take(self, numbers: Tensor) -> Images:
        """The images of these numbers, int64 (M,), in that order."""
        labels = self.class_labels
        return replace(self, x=self.x[numbers], class_labels=None if labels is None else labels[numbers])

    def grey(self) -> Images:
        """One channel instead of three, if these are equal in every pixel; as it is otherwise.

        torchvision's `save_image`, for one, writes grey images with three equal channels.
        """
        if self.x.shape[1] != 3 or not all(bool((one[:1] == one).all()) for one in self.x):
            return self
        return replace(self, x=self.x[:, :1])


def read_images(
    path: str | Path,
    *,
    size: int | None = None,
    corrupt: str = "refuse",
    show: bool = True,
    leave_out: Collection[str] = (),
) -> Images:
    """The images in a folder, or in an .npz or .npy file.

    A folder's pictures (PNG, JPEG, WebP, BMP) are read from all its subfolders, linked ones too, in the natural order
    of their paths, img2 before img10; hidden files are not looked at. Palettes become colours; an alpha channel is
    dropped if it is opaque everywhere. In a folder that has both, grey pictures get three equal channels.

    An array is uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; of an .npz `arr_0` or its only array. What
    the images show is given by whole numbers (N,) beside it, called `labels`, or `arr_1` as ADM writes them
    ("Diffusion Models Beat GANs on Image Synthesis", arXiv 2105.05233). Folders do not tell it: a subfolder may as well
    be the next thousand of the images.

    Args:
        path: of the folder or file.
        size: height and width to bring all to: shorter side by Pillow's bicubic filter, which is antialiased (G. Parmar
            et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv 2104.11222), then the
            centre. Images of that size stay as they are.
        corrupt: what becomes of pictures that cannot be read: `refuse`, or `skip` to leave them out and count them.
        show: whether to draw a bar when standard error is a terminal.
        leave_out: names of files of a folder that are none of its pictures.

    Raises:
        ValueError: in one line, for what is no such folder or file, or holds what would have to be guessed.
        OSError: for what may not be read.
    """
    path = Path(path)
    one_of("corrupt", corrupt, CORRUPT)
    if size is not None:
        whole("size", size, 1)
    if path.is_dir():
        return _folder(path, size, corrupt, show, leave_out)
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise ValueError(f"{path} is no folder, .npz or .npy file; to score pictures give the folder that holds them")
    try:
        if path.suffix.lower() == ".npz":
            x, class_labels = _unpacked(path)
        else:
            x, class_labels = _array(path, lambda: path.open("rb"), path.stat().st_size), None
        if size is None or x.shape[2:] == (size, size):
            return Images(torch.from_numpy(np.ascontiguousarray(x)), class_labels=class_labels)
    except MemoryError:
        raise _too_large(path) from None
    pictures = (_fitted(Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)), size) for one in x)
    return Images(
        _stacked(path, ((str(i), one) for i, one in enumerate(pictures)), len(x)),
        resize=_resize(size),
        class_labels=class_labels,
    )


# --- folders --------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """A file that Pillow cannot read; the message says why."""


def _folder(folder: Path, size: int | None, corrupt: str, show: bool, leave_out: Collection[str]) -> Images:
    names, ignored = _names(folder)
    names = [name for name in names if name not in leave_out]
    if not names:
        raise ValueError(f"{folder} holds no pictures: neither it nor its subfolders have a {', '.join(SUFFIXES)} file")
    broken: list[tuple[str, str]] = []
    resized = False

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        nonlocal resized
        for name in tqdm(names, desc="pictures", unit="img", disable=None if show else True, leave=False):
            try:
                picture = _picture(folder / name)
            except _Broken as error:
                broken.append((name, str(error)))
                continue
            resized |= size is not None and picture.size != (size, size)
            yield name, picture if size is None else _fitted(picture, size)

    x = _stacked(folder, pictures(), len(names))
    if broken and corrupt == "refuse":
        examples = ", ".join(f"{name} ({reason})" for name, reason in broken[:_NAMED])
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise ValueError(
            f"{len(broken)} of {len(names)} pictures in {folder} cannot be read: {examples}{more}; "
            "corrupt=skip leaves such files out and counts them"
        )
    if not len(x):
        raise ValueError(f"none of the {len(names)} pictures in {folder} can be read: {broken[0][0]} ({broken[0][1]})")
    return Images(x, len(broken), ignored, _resize(size) if size and resized else "none")


def _names(folder: Path) -> tuple[list[str], int]:
    """Paths of all pictures below `folder`, relative to it, and the number of other files; hidden ones do not count."""
    found: list[str] = []
    ignored = 0

    def refuse(error: OSError) -> None:
        raise error

    # Without a word of it, a folder that may not be read would count as empty, and a linked one as absent.
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and not _leads_back(Path(place, name))]
        for name in files:
            if name[0] == ".":
                continue
            if name.lower().endswith(SUFFIXES):
                found.append((Path(place) / name).relative_to(folder).as_posix())
            else:
                ignored += 1
    return sorted(found, key=_natural), ignored


def _leads_back(folder: Path) -> bool:
    """Whether a link goes to a folder that it lies in."""
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}


def _natural(path: str) -> tuple[Any, ...]:
    # Text and digits alternate, so that only like is compared with like.
    parts = [re.split(r"([0-9]+)", part) for part in path.split("/")]
    return [[int(text) if i % 2 else text for i, text in enumerate(part)] for part in parts], path


def _picture(path: Path) -> Image.Image:
    """A file's picture, of mode L or RGB."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _Broken("a link to nowhere") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            # The bits of a PNG; Pillow would cut 16 of them down to 8 without a word.
            deep = picture.format == "PNG" and content[24] > 8
            animated = getattr(picture, "is_animated", False)
            if not deep and not animated:
                picture.load()
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    except Exception as error:
        # Whatever is broken in a file, Pillow's readers say so with exceptions of many kinds.
        reason = "no picture" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise _Broken(reason if content else "empty file") from error
    if deep or picture.mode.startswith(("I", "F")):
        raise ValueError(
            f"{path} has more than 8 bits a channel, and scores are of 8 bits: convert such files first, rounding "
            "(16 bits: value / 257)"
        )
    if animated:
        raise ValueError(f"{path} holds several pictures: write each to a file of its own")
    if turned:
        raise ValueError(
            f"{path} is to be turned or mirrored before it is shown (its EXIF says so, which not every program heeds): "
            "write such files as they are to be seen"
        )
    if picture.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in picture.info:
        grey = picture.mode in ("L", "LA", "La")
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            raise ValueError(f"{path} is transparent in places, and what shines through is not said: flatten it first")
        return picture.convert("RGB").getchannel("R") if grey else picture.convert("RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if picture.mode in ("P", "RGB"):
        return picture.convert("RGB")
    raise ValueError(f"{path} has the colours {picture.mode}: convert such files to RGB or grey first")


def _resize(size: int) -> str:
    return f"shorter side to {size} (Pillow bicubic, antialiased), centre"


def _fitted(picture: Image.Image, size: int) -> Image.Image:
    if picture.size == (size, size):
        return picture
    width, height = picture.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _stacked(source: Path, pictures: Iterable[tuple[str, Image.Image]], count: int) -> Tensor:
    """At most `count` pictures of one size as uint8 (N, C, H, W), each written once into its place."""
    x, first, found = np.empty((0, 1, 0, 0), dtype=np.uint8), ("", (0, 0)), 0
    try:
        for name, picture in pictures:
            if not found:
                first = name, picture.size
                x = _room(source, (count, 3 if picture.mode == "RGB" else 1, picture.height, picture.width))
            if picture.size != first[1]:
                here, there = (f"{width}x{height}" for width, height in (picture.size, first[1]))
                raise ValueError(
                    f"{source} holds pictures of different sizes: {first[0]} is {there}, {name} is {here}; "
                    "--size N brings all to N x N"
                )
            if picture.mode == "RGB" and x.shape[1] == 1:
                x, grey = _room(source, (count, 3, *x.shape[2:])), x
                x[:found] = grey[:found]
            values = np.asarray(picture)
            x[found] = values.transpose(2, 0, 1) if values.ndim == 3 else values
            found += 1
    except MemoryError:
        raise _too_large(source) from None
    return torch.from_numpy(x[:found])


def _room(source: Path, shape: Sequence[int]) -> np.ndarray:
    _check_memory(source, math.prod(shape))
    return np.empty(shape, dtype=np.uint8)


# --- arrays ---------------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> tuple[np.ndarray, Tensor | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in files}
            images = [name for name in sizes if name != "labels"]
            chosen = "arr_0" if "arr_0" in images else images[0] if len(images) == 1 else None
            if chosen is None:
                raise ValueError(f"{path} must hold arr_0, or one array only; it holds {', '.join(sizes) or 'none'}")
            x = _array(path, lambda: archive.open(f"{chosen}.npy"), sizes[chosen])
            beside = [name for name in ("labels", "arr_1") if name in sizes and name != chosen]
            class_labels = (
                _labels(path, name, lambda name=name: archive.open(f"{name}.npy"), len(x)) for name in beside
            )
            return x, next((labels for labels in class_labels if labels is not None), None)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def _labels(path: Path, name: str, opened: Callable[[], IO[bytes]], count: int) -> Tensor | None:
    """The labels (N,) of as many images; None for an unnamed array of another kind."""
    with opened() as stream:
        shape, dtype = _header(path, stream)
        if dtype.kind in "iu" and shape == (count,):
            # Of what is promised no more than is there is read.
            content = stream.read(count * dtype.itemsize)
            if len(content) < count * dtype.itemsize or stream.read(1):
                raise ValueError(f"{path} is cut short or altered: {name} has not the {count:,} values that it should")
            return torch.from_numpy(np.frombuffer(content, dtype).astype(np.int64))
    if name == "labels":
        raise ValueError(f"{path} has labels of {dtype} {shape}: they must be whole numbers ({count},), one an image")
    return None


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that a stream promises."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"format version {version}")
        shape, _, dtype = _HEADERS[version](stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise ValueError(f"{path} holds no array that can be read ({' '.join(str(error).split())})") from error
    return shape, dtype


def _array(path: Path, opened: Callable[[], IO[bytes]], size: int) -> np.ndarray:
    """The images (N, C, H, W) in a stream of `size` bytes; what it says of itself is checked before it is read."""
    with opened() as stream:
        shape, dtype = _header(path, stream)
        left = size - stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{path} holds pickled objects, which are not read: save an array of uint8")
    if dtype != np.uint8:
        how = f": convert it first, as {_TO_UINT8}" if dtype.kind == "f" else " of values 0..255"
        raise ValueError(f"{path} holds {dtype} {shape}, and images must be uint8{how}")
    axis = _channels(path, shape)
    if math.prod(shape) != left:
        raise ValueError(
            f"{path} is cut short or altered: {shape} are {math.prod(shape):,} bytes, and it holds {left:,}"
        )
    _check_memory(path, left if axis == 1 else 2 * left)
    with opened() as stream:
        x = np.lib.format.read_array(stream, allow_pickle=False)
    return np.expand_dims(x, 1) if axis is None else np.moveaxis(x, axis, 1)


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _channels(path: Path, shape: tuple[int, ...]) -> int | None:
    """Which axis of an array has the channels; None if there is no such axis."""
    if min(shape, default=0) < 1:
        raise ValueError(f"{path} holds {shape}: no images")
    # Three axes of which the last is 1 or 3 long may as well be a single picture.
    candidates = [axis for axis in (1, 3) if shape[axis:] and shape[axis] in (1, 3)] if len(shape) == 4 else []
    if len(candidates) == 1:
        return candidates[0]
    if len(shape) == 3 and shape[2] not in (1, 3):
        return None
    why = "could mean several things" if candidates or len(shape) == 3 else "are no images"
    raise ValueError(f"{path} holds {shape}, which {why}: save (N, H, W, C) with C 1 or 3, and H neither")


def _check_memory(source: Path, size: int) -> None:
    if size > psutil.virtual_memory().available:
        raise _too_large(source, size)


def _too_large(source: Path, size: int | None = None) -> ValueError:
    needed = "" if size is None else f" of {size / 1e9:,.1f} GB"
    free = psutil.virtual_memory().available / 1e9
    return ValueError(f"the images{needed} in {source} do not fit into this machine's memory ({free:,.1f} GB free)")
