"""Images from outside are read as they are, or refused in one line that names the file and what it holds."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsweep.data.digits import Digits
from diffsweep.evaluation.images import Images, read_images

GREY = Digits().load("test").x[:12]
COLOUR = torch.stack([GREY, 255 - GREY, GREY // 2], dim=1).squeeze(2)


def picture(one: Tensor) -> Image.Image:
    return Image.fromarray(one.squeeze(0).numpy() if len(one) == 1 else one.permute(1, 2, 0).numpy())


def written(folder: Path, x: Tensor, kind: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(x):
        picture(one).save(folder / f"img{i}.{kind}")
    return folder


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_images(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("x", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_folder_gives_back_the_pixels_in_natural_order(tmp_path: Path, x: Tensor, kind: str) -> None:
    images = read_images(written(tmp_path, x, kind))
    assert images.x.dtype == torch.uint8
    assert torch.equal(images.x, x)
    assert (images.skipped, images.ignored, images.resize) == (0, 0, "none")


def test_subfolders_count_and_hidden_and_other_files_do_not(tmp_path: Path) -> None:
    for i, place in enumerate(("10", "9/b", "9/a2", "9/a10", "9/.hidden", ".cache")):
        written(tmp_path / place, GREY[i : i + 1])
    (tmp_path / "9" / ".img.png").write_bytes(b"half a file")
    (tmp_path / "notes.txt").write_text("made on Monday")
    images = read_images(tmp_path)
    assert torch.equal(images.x, GREY[[2, 3, 1, 0]])
    assert images.ignored == 1


def test_linked_folders_count_and_a_link_to_a_folder_above_does_not(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", GREY[:2])
    written(tmp_path / "here", GREY[2:3])
    (tmp_path / "here" / "a").symlink_to(tmp_path / "elsewhere")
    for name, target in (("b", tmp_path / "here"), ("c", tmp_path), ("d", tmp_path / "nowhere")):
        (tmp_path / "here" / name).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "here")
    assert torch.equal(read_images(tmp_path / "here").x, GREY[:3])
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert torch.equal(read_images(tmp_path / "link").x, GREY[:3])


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "open", GREY[:2])
    written(tmp_path / "closed", GREY[2:4])
    # As whoever runs the tests may read everything.
    scan = os.scandir

    def guarded(place: str) -> object:
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", guarded)
    for path in (tmp_path, tmp_path / "closed"):
        with pytest.raises(PermissionError, match="closed"):
            read_images(path, corrupt="skip")


@pytest.mark.parametrize(
    ("x", "stored"),
    [
        (GREY, GREY.squeeze(1).numpy()),
        (GREY, GREY.numpy()),
        (GREY, GREY.permute(0, 2, 3, 1).numpy()),
        (COLOUR, COLOUR.numpy()),
        (COLOUR, COLOUR.permute(0, 2, 3, 1).numpy()),
        (COLOUR, np.asfortranarray(COLOUR.numpy())),
    ],
    ids=["NHW", "N1HW", "NHW1", "N3HW", "NHW3", "fortran"],
)
def test_arrays_in_any_clear_order_of_axes_are_the_same_images(tmp_path: Path, x: Tensor, stored: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", stored)
    np.savez(tmp_path / "only.npz", anything=stored)
    np.savez_compressed(tmp_path / "adm.npz", stored, np.arange(len(stored)))
    for name in ("a.npy", "only.npz", "adm.npz"):
        images = read_images(tmp_path / name)
        assert torch.equal(images.x, x)
        assert replace(images, class_labels=None).digest() == Images(x).digest()


def test_labels_beside_an_array_are_what_its_images_show(tmp_path: Path) -> None:
    labels = torch.arange(12) % 5
    np.savez(tmp_path / "adm.npz", GREY.numpy(), labels.numpy())
    np.savez(tmp_path / "named.npz", images=GREY.numpy(), labels=labels.numpy().astype(">u2"))
    large = GREY.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).numpy()
    np.savez(tmp_path / "large.npz", large, labels.numpy())
    adm, named = (read_images(tmp_path / f"{name}.npz") for name in ("adm", "named"))
    for images in (adm, named, read_images(tmp_path / "large.npz", size=8), adm.grey()):
        assert images.class_labels is not None
        assert images.class_labels.dtype == torch.int64
        assert torch.equal(images.labels, labels)
    assert torch.equal(adm.take(torch.arange(3)).labels, labels[:3])
    np.savez(tmp_path / "other.npz", GREY.numpy(), labels.flip(0).numpy())
    np.savez(tmp_path / "features.npz", GREY.numpy(), np.zeros((12, 64)))
    untold = read_images(tmp_path / "features.npz")
    assert untold.class_labels is None
    assert torch.equal(untold.labels, torch.zeros(12, dtype=torch.int64))
    assert adm.digest() == named.digest()
    assert len({images.digest() for images in (adm, untold, read_images(tmp_path / "other.npz"))}) == 3


@pytest.mark.parametrize(
    "labels", [np.zeros(12), np.arange(11), np.eye(12, dtype=np.int64), np.array(["cat"] * 12), np.array([{}] * 12)]
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", GREY.numpy(), labels=labels)
    assert "must be whole numbers (12,)" in refusal(tmp_path / "a.npz")


def test_the_digest_is_that_of_the_pixels(tmp_path: Path) -> None:
    one = read_images(written(tmp_path / "a", GREY)).digest()
    written(tmp_path / "b", GREY, "bmp")
    for path in (tmp_path / "b").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    assert read_images(tmp_path / "b").digest() == one
    changed = GREY.clone()
    changed[3, 0, 2, 2] += 1
    assert Images(changed).digest() != one
    assert Images(GREY.view(12, 1, 4, 16)).digest() != one
    assert Images(GREY.flip(0)).digest() != one


def test_palettes_and_opaque_alpha_lose_nothing(tmp_path: Path) -> None:
    opaque = picture(COLOUR[0]).convert("RGBA")
    opaque.save(tmp_path / "0.png")
    colours = picture(COLOUR[0]).quantize(256)
    colours.save(tmp_path / "1.png")
    images = read_images(tmp_path)
    assert torch.equal(images.x[0], COLOUR[0])
    assert torch.equal(images.x[1], torch.from_numpy(np.array(colours.convert("RGB"))).permute(2, 0, 1))
    grey = tmp_path / "grey"
    grey.mkdir()
    picture(GREY[0]).convert("LA").save(grey / "0.png")
    assert torch.equal(read_images(grey).x, GREY[:1])


def test_grey_pictures_among_coloured_ones_get_three_equal_channels(tmp_path: Path) -> None:
    for i, one in enumerate((GREY[0], GREY[1], COLOUR[2], GREY[3])):
        picture(one).save(tmp_path / f"{i}.png")
    expected = torch.stack([GREY[0].expand(3, 8, 8), GREY[1].expand(3, 8, 8), COLOUR[2], GREY[3].expand(3, 8, 8)])
    assert torch.equal(read_images(tmp_path).x, expected)


def test_three_equal_channels_are_grey_and_others_are_not() -> None:
    tripled = GREY.expand(-1, 3, -1, -1).clone()
    assert torch.equal(Images(tripled).grey().x, GREY)
    tripled[5, 2, 0, 0] += 1
    assert Images(tripled).grey().shape == (3, 8, 8)
    assert torch.equal(Images(GREY).grey().x, GREY)


def test_corrupt_files_are_named_or_skipped_and_counted(tmp_path: Path) -> None:
    content = (written(tmp_path, GREY) / "img0.png").read_bytes()
    (tmp_path / "img1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "img4.png").write_bytes(b"")
    (tmp_path / "img5.png").write_bytes(b"<html>404</html>")
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    (tmp_path / "img7.png").write_bytes(flipped)
    (tmp_path / "img9.png").unlink()
    (tmp_path / "img9.png").symlink_to("nowhere.png")
    said = refusal(tmp_path)
    assert "5 of 12" in said
    assert all(name in said for name in ("img1.png", "img4.png (empty file)", "img5.png (no picture)", "and 2 more"))
    images = read_images(tmp_path, corrupt="skip")
    assert torch.equal(images.x, GREY[[0, 2, 3, 6, 8, 10, 11]])
    assert images.skipped == 5


def test_a_folder_of_nothing_but_corrupt_files_is_refused_whatever_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    assert "none of the 1 pictures" in refusal(tmp_path, corrupt="skip")


def test_a_file_that_unpacks_to_far_more_than_a_picture_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 0, b"\0"))
    assert "bomb.png" in refusal(tmp_path)


def png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def transparent() -> bytes:
    one = picture(COLOUR[0]).convert("RGBA")
    one.putpixel((3, 3), (0, 0, 0, 254))
    return saved(one, "png")


def keyed() -> bytes:
    buffer = io.BytesIO()
    picture(COLOUR[0]).save(buffer, "png", transparency=tuple(COLOUR[0, :, 0, 0].tolist()))
    return buffer.getvalue()


def animated() -> bytes:
    buffer = io.BytesIO()
    picture(COLOUR[0]).save(buffer, "png", save_all=True, append_images=[picture(COLOUR[1])])
    return buffer.getvalue()


def turned(kind: str) -> bytes:
    told = Image.Exif()
    told[0x0112] = 6
    buffer = io.BytesIO()
    picture(COLOUR[0]).save(buffer, kind, exif=told)
    return buffer.getvalue()


def saved(one: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    one.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: saved(Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)), "png"), "more than 8 bits"),
        (lambda: png(8, 8, 16, 2, (b"\0" + bytes(48)) * 8), "more than 8 bits"),
        (lambda: png(8, 8, 16, 6, (b"\0" + bytes(64)) * 8), "more than 8 bits"),
        (transparent, "transparent"),
        (keyed, "transparent"),
        (animated, "several pictures"),
        (lambda: saved(picture(COLOUR[0]).convert("CMYK"), "jpeg"), "CMYK"),
        (lambda: turned("jpeg"), "turned"),
        (lambda: turned("png"), "turned"),
    ],
    ids=[
        "16 bit grey",
        "16 bit colour",
        "16 bit alpha",
        "alpha",
        "transparent colour",
        "animated",
        "CMYK",
        "turned JPEG",
        "turned PNG",
    ],
)
@pytest.mark.parametrize("corrupt", ["refuse", "skip"])
def test_what_would_have_to_be_guessed_is_refused_with_the_file(
    tmp_path: Path, content: Callable[[], bytes], reason: str, corrupt: str
) -> None:
    (tmp_path / "odd.png").write_bytes(content())
    said = refusal(tmp_path, corrupt=corrupt)
    assert "odd.png" in said
    assert reason in said


def test_different_sizes_are_refused_with_two_examples_or_brought_to_one(tmp_path: Path) -> None:
    written(tmp_path, GREY[:3])
    wide = Image.new("L", (40, 20), 7)
    wide.paste(200, (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    said = refusal(tmp_path)
    assert all(word in said for word in ("img0.png is 8x8", "wide.png is 40x20", "--size"))
    images = read_images(tmp_path, size=8)
    assert torch.equal(images.x[:3], GREY[:3])
    # Of the wide one the middle is left, and nothing of what was beside it.
    assert images.x[3, :, :, 2:-2].eq(200).all()
    assert "bicubic" in images.resize
    assert read_images(written(tmp_path / "same", GREY), size=8).resize == "none"


def test_an_array_is_resized_as_pictures_are(tmp_path: Path) -> None:
    large = COLOUR.repeat_interleave(3, dim=2).repeat_interleave(5, dim=3)
    np.save(tmp_path / "a.npy", large.permute(0, 2, 3, 1).numpy())
    one, two = read_images(tmp_path / "a.npy", size=8), read_images(written(tmp_path / "a", large), size=8)
    assert one.shape == (3, 8, 8)
    assert torch.equal(one.x, two.x)
    assert one.resize == two.resize != "none"


def test_shrinking_averages_what_it_leaves_out(tmp_path: Path) -> None:
    """A fine chessboard becomes grey; a filter without antialiasing keeps black and white."""
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).mul(255).to(torch.uint8).expand(2, 1, 64, 64)
    x = read_images(written(tmp_path, board), size=8).x.float()
    assert (x - 127.5).abs().max() < 3


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (GREY.numpy() / 255, "clip"),
        (GREY.float().numpy(), "clip"),
        (GREY.long().numpy(), "int64"),
        (GREY.bool().numpy(), "bool"),
        (np.zeros((5, 3, 8, 3), np.uint8), "(5, 3, 8, 3), which could mean"),
        (np.zeros((1, 28, 28, 1), np.uint8)[0], "(28, 28, 1), which could mean"),
        (np.zeros((28, 28, 3), np.uint8), "(28, 28, 3), which could mean"),
        (np.zeros((5, 8, 8, 4), np.uint8), "(5, 8, 8, 4), which are no images"),
        (np.zeros((5, 64), np.uint8), "(5, 64), which are no images"),
        (np.zeros((2, 5, 8, 8, 3), np.uint8), "no images"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no images"),
        (np.zeros((5, 0, 8, 3), np.uint8), "no images"),
        (np.array([{"a": 1}], dtype=object), "pickled"),
    ],
    ids=str,
)
def test_arrays_that_would_have_to_be_guessed_are_refused(tmp_path: Path, stored: np.ndarray, reason: str) -> None:
    np.savez(tmp_path / "a.npz", stored)
    np.save(tmp_path / "a.npy", stored)
    assert reason in refusal(tmp_path / "a.npz")
    assert reason in refusal(tmp_path / "a.npy")


def header(shape: tuple[int, ...], data: bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": "|u1"})
    return buffer.getvalue() + data


@pytest.mark.parametrize("shape", [(10**6, 10**5, 10**5, 3), (10**9, 2, 2, 3), (3, 8, 8, 3)])
def test_an_array_that_claims_to_be_what_it_is_not_is_refused_at_once(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = header(shape, bytes(100))
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", content)
    assert "cut short or altered" in refusal(tmp_path / "a.npy")
    assert "cut short or altered" in refusal(tmp_path / "a.npz")


def test_a_header_that_is_no_header_is_refused(tmp_path: Path) -> None:
    text = b"{[]: 1}".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    assert "no array that can be read" in refusal(tmp_path / "a.npy")
    for shape in ((-1, 8, 8, 3), (-2, -8, 8)):
        (tmp_path / "b.npy").write_bytes(header(shape, bytes(128)))
        assert "no images" in refusal(tmp_path / "b.npy")


def test_an_array_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    count = 4 * psutil.virtual_memory().total // 3072
    start = header((count, 32, 32, 3), b"")
    with (tmp_path / "a.npy").open("wb") as stream:
        stream.write(start)
        # A file with a hole, which takes no room.
        stream.truncate(len(start) + count * 3072)
    assert re.search(r"of [\d,.]+ GB .* do not fit into this machine.s memory", refusal(tmp_path / "a.npy"))


def test_broken_archives_and_unknown_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez(whole, GREY.numpy())
    content = whole.getvalue()
    cases = {
        "short.npz": content[:200],
        "empty.npz": b"",
        "altered.npz": content[:400] + bytes([content[400] ^ 1]) + content[401:],
        "two.npz": b"",
        "lzma.npz": b"",
        "empty.npy": b"",
        "text.npy": b"no array",
        "picture.png": b"",
    }
    for name, one in cases.items():
        (tmp_path / name).write_bytes(one)
    np.savez(tmp_path / "two.npz", a=GREY.numpy(), b=GREY.numpy())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("arr_0.npy", header(tuple(GREY.shape), GREY.numpy().tobytes()))
    middle = packed.getvalue().index(b"arr_0.npy") + 40
    altered = packed.getvalue()[:middle] + b"\xff\xff\xff\xff" + packed.getvalue()[middle + 4 :]
    (tmp_path / "lzma.npz").write_bytes(altered)
    for name in cases:
        refusal(tmp_path / name)
    assert "it holds a, b" in refusal(tmp_path / "two.npz")
    assert "give the folder" in refusal(tmp_path / "picture.png")
    assert "there is no" in refusal(tmp_path / "absent")
    (tmp_path / "none").mkdir()
    assert "no pictures" in refusal(tmp_path / "none")
