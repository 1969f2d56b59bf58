"""Hostile and odd collections: each is read as docs/data.md says, or refused in one line, and nothing escapes.

A hang is a failure by pytest's own limit.
"""

from __future__ import annotations

import io
import os
import re
import socket
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin
from pyarrow import parquet as pq

from collections_made import write_tree as tree
from diffsweep.data.decoders import PictureDecoder
from diffsweep.data.packing import Packing, pack

G = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
CASES: dict[str, tuple[Callable[[Path], Path], str | int]] = {}


def case(expected: str | int) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """A collection that is refused with this message, or read with so many pictures."""

    def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES[make.__name__] = make, expected
        return make

    return add


def png(pixels: np.ndarray = G, kind: str = "png", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


P, Q = png(), png(G[::-1])


def zipf(place: Path, entries: Sequence[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return place / "a.zip"


def ti(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def tarf(place: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], name: str = "a.tar", mode: Any = "w") -> Path:
    with tarfile.open(place / name, mode) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return place / name


def parquet(place: Path, table: dict[str, Any], name: str = "a.parquet", compression: str = "snappy") -> Path:
    pq.write_table(pa.table(table), place / name, compression=compression)
    return place / name


def damaged(path: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


@case(1)
def zip_slip(p: Path) -> Path:
    return zipf(p, [("../../evil.png", P), ("a.png", P)])


@case(1)
def zip_absolute(p: Path) -> Path:
    return zipf(p, [("/etc/evil.png", P)])


@case(1)
def zip_backslash(p: Path) -> Path:
    return zipf(p, [("a\\b.png", P)])


@case(1)
def zip_double_names(p: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipf(p, [("a.png", P), ("a.png", Q)])


@case(r"a\.png \(encrypted\)")
def zip_encrypted(p: Path) -> Path:
    f = zipf(p, [("a.png", P)])
    d = bytearray(f.read_bytes())
    d[6] |= 1
    i = d.index(b"PK\x01\x02")
    d[i + 8] |= 1
    f.write_bytes(d)
    return f


@case(r"holds no pictures")
def zip_nested(p: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z:
        z.writestr("a.png", P)
    return zipf(p, [("inner.zip", inner.getvalue())])


@case(r"no zip archive that can be read")
def zip_truncated(p: Path) -> Path:
    f = zipf(p, [(f"{i}.png", P) for i in range(9)])
    d = f.read_bytes()
    f.write_bytes(d[: len(d) // 2])
    return f


@case(r"1 of the 2 .*a\.png \(Bad CRC-32")
def zip_bad_crc(p: Path) -> Path:
    f = zipf(p, [("a.png", P), ("b.png", Q)])
    d = bytearray(f.read_bytes())
    d[60] ^= 255
    f.write_bytes(d)
    return f


@case(r"holds no pictures")
def zip_empty(p: Path) -> Path:
    return zipf(p, [])


@case(r"no zip archive")
def zip_zero_bytes(p: Path) -> Path:
    (p / "a.zip").write_bytes(b"")
    return p / "a.zip"


@case(r"compression method is not supported")
def zip_unknown_compression(p: Path) -> Path:
    f = zipf(p, [("a.png", P)])
    d = bytearray(f.read_bytes())
    d[8] = 99
    i = d.index(b"PK\x01\x02")
    d[i + 10] = 99
    f.write_bytes(d)
    return f


@case(r"a\.png \(no picture\)")
def zip_symlink(p: Path) -> Path:
    info = zipfile.ZipInfo("a.png")
    info.create_system = 3
    info.external_attr = (0o120777) << 16
    with zipfile.ZipFile(p / "a.zip", "w") as z:
        z.writestr(info, "/etc/passwd")
        z.writestr("b.png", P)
    return p / "a.zip"


@case(1)
def tar_device(p: Path) -> Path:
    return tarf(p, [(ti("a.png", kind=tarfile.CHRTYPE), b""), (ti("b.png", len(P)), P)])


@case(r"holds no pictures")
def tar_only_device(p: Path) -> Path:
    return tarf(p, [(ti("a.png", kind=tarfile.CHRTYPE), b"")])


@case(1)
def tar_link_out(p: Path) -> Path:
    return tarf(p, [(ti("a.png", kind=tarfile.SYMTYPE, link="/etc/passwd"), b""), (ti("b.png", len(P)), P)])


@case(1)
def tar_hardlink(p: Path) -> Path:
    return tarf(p, [(ti("b.png", len(P)), P), (ti("a.png", kind=tarfile.LNKTYPE, link="b.png"), b"")])


@case(r"holds no pictures")
def tar_slip(p: Path) -> Path:
    return tarf(p, [(ti("../../b.png", len(P)), P)])


@case(r"no tar archive that can be read")
def tar_truncated(p: Path) -> Path:
    f = tarf(p, [(ti(f"{i}.png", len(P)), P) for i in range(9)])
    d = f.read_bytes()
    f.write_bytes(d[:1700])
    return f


@case(r"ended before the end")
def tar_gz_truncated(p: Path) -> Path:
    f = tarf(p, [(ti(f"{i}.png", len(P)), P) for i in range(9)], "a.tar.gz", "w:gz")
    d = f.read_bytes()
    f.write_bytes(d[: len(d) // 2])
    return f


@case(r"a\.png \(no picture\)")
def tar_gz_bomb(p: Path) -> Path:
    f = p / "a.tar.gz"
    with tarfile.open(f, "w:gz", compresslevel=9) as t:
        t.addfile(ti("a.png", 300_000_000), io.BytesIO(bytes(300_000_000)))
    return f


@case(r"no tar archive")
def tar_zero(p: Path) -> Path:
    (p / "a.tar").write_bytes(b"")
    return p / "a.tar"


@case(r"1\.tar is no tar archive")
def tar_shard_zero_among(p: Path) -> Path:
    d = p / "s"
    d.mkdir()
    tarf(d, [(ti("b.png", len(P)), P)], "0.tar")
    (d / "1.tar").write_bytes(b"")
    return d


@case(r"1 of the 2 pictures .* have no class")
def tar_missing_cls_some(p: Path) -> Path:
    return tarf(p, [(ti("a.png", len(P)), P), (ti("b.png", len(P)), P), (ti("a.cls", 1), b"3")])


@case(1)
def tar_sparse_offset(p: Path) -> Path:
    return tarf(p, [(ti("ä" * 120 + ".png", len(P)), P)])


@case(r"has no column image, but label")
def pq_no_image(p: Path) -> Path:
    return parquet(p, {"label": [1, 2]})


@case(r"a\.parquet/1 \(a row without the bytes")
def pq_null_image(p: Path) -> Path:
    return parquet(p, {"image": [{"bytes": P, "path": "a"}, None], "label": [0, 1]})


@case(r"a\.parquet/1 \(a row without the bytes")
def pq_null_bytes(p: Path) -> Path:
    return parquet(p, {"image": [{"bytes": P, "path": "a"}, {"bytes": None, "path": "b"}]})


@case(r"2 of the 2 .* cannot be read")
def pq_int_image(p: Path) -> Path:
    return parquet(p, {"image": [1, 2]})


@case(r"1 of the 2 pictures .* have no class")
def pq_null_label(p: Path) -> Path:
    return parquet(p, {"image": [{"bytes": P, "path": "a"}, {"bytes": Q, "path": "b"}], "label": [0, None]})


@case(2)
def pq_caption_some(p: Path) -> Path:
    return parquet(p, {"image": [{"bytes": P, "path": "a"}, {"bytes": Q, "path": "b"}], "text": ["x", None]})


@case(1)
def pq_caption_list(p: Path) -> Path:
    return parquet(p, {"image": [{"bytes": P, "path": "a"}], "text": [["x", "y"]]})


@case(r"holds no pictures")
def pq_empty_rows(p: Path) -> Path:
    return parquet(p, {"image": pa.array([], pa.binary())})


@case(r"no table that can be read")
def pq_truncated(p: Path) -> Path:
    f = parquet(p, {"image": [P] * 9})
    d = f.read_bytes()
    f.write_bytes(d[:-20])
    return f


@case(r"9 of the 9 .*Corrupt snappy")
def pq_corrupt_page(p: Path) -> Path:
    f = parquet(p, {"image": [P] * 9}, compression="snappy")
    d = bytearray(f.read_bytes())
    d[30:60] = b"\xff" * 30
    f.write_bytes(d)
    return f


@case(r"1\.parquet is no table")
def pq_zero_shard(p: Path) -> Path:
    d = p / "s"
    d.mkdir()
    parquet(d, {"image": [P]}, "0.parquet")
    (d / "1.parquet").write_bytes(b"")
    return d


@case(r"no table that can be read")
def arrow_nonsense(p: Path) -> Path:
    (p / "a.arrow").write_bytes(b"ARROW1" + b"x" * 100)
    return p / "a.arrow"


@case(r"images of .* cannot be read .*allow_pickle=False")
def npz_pickle(p: Path) -> Path:
    np.savez(p / "a.npz", images=np.array([{}], dtype=object))
    return p / "a.npz"


@case(r"labels of .* cannot be read .*allow_pickle=False")
def npz_pickled_labels(p: Path) -> Path:
    np.savez(p / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.array([{}, 1], dtype=object))
    return p / "a.npz"


@case(r"they must be \(2,\)")
def npz_label_length(p: Path) -> Path:
    np.savez(p / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.array([1]))
    return p / "a.npz"


@case(r"they must be \(2,\)")
def npz_onehot(p: Path) -> Path:
    np.savez(p / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.eye(2))
    return p / "a.npz"


@case(r"labels of float64: they must be whole numbers or text")
def npz_float_labels(p: Path) -> Path:
    np.savez(
        p / "a.npz",
        images=np.zeros((2, 4, 4), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None],
        labels=np.array([0.5, np.nan]),
    )
    return p / "a.npz"


@case(r"holds uint16")
def npz_uint16(p: Path) -> Path:
    np.savez(p / "a.npz", images=np.zeros((2, 4, 4), np.uint16))
    return p / "a.npz"


@case(r"no array that can be read")
def npy_header_lies(p: Path) -> Path:
    np.save(p / "a.npy", np.zeros((2, 4, 4), np.uint8))
    d = (p / "a.npy").read_bytes().replace(b"(2, 4, 4)", b"(9, 9, 9)")
    (p / "a.npy").write_bytes(d)
    return p / "a.npy"


@case(r"no array that can be read")
def npy_huge_header(p: Path) -> Path:
    np.save(p / "a.npy", np.zeros((2, 4, 4), np.uint8))
    d = (p / "a.npy").read_bytes().replace(b"(2, 4, 4), }   ", b"(99999999,9,9)}")
    (p / "a.npy").write_bytes(d)
    return p / "a.npy"


@case(r"holds no pictures")
def npy_empty_array(p: Path) -> Path:
    np.save(p / "a.npy", np.zeros((0, 4, 4), np.uint8))
    return p / "a.npy"


@case(r"save images as")
def npy_scalar(p: Path) -> Path:
    np.save(p / "a.npy", np.uint8(3))
    return p / "a.npy"


@case(r"cannot be read .*expected")
def npz_bomb(p: Path) -> Path:
    with zipfile.ZipFile(p / "a.npz", "w", zipfile.ZIP_DEFLATED) as z:
        b = io.BytesIO()
        np.save(b, np.zeros((1, 4, 4), np.uint8))
        h = b.getvalue()[:128].replace(b"(1, 4, 4)", b"(40000,80,80)")
        z.writestr("images.npy", h[:128] + bytes(1000))
    return p / "a.npz"


@case(r"neither a file nor a folder")
def fifo_path(p: Path) -> Path:
    os.mkfifo(p / "a.zip")
    return p / "a.zip"


@case(r"b\.png \(.*this is no file")
def fifo_in_folder(p: Path) -> Path:
    d = tree(p / "d", {"a.png": P})
    os.mkfifo(d / "b.png")
    return d


@case(r"a\.txt cannot be read .*this is no file")
def fifo_caption(p: Path) -> Path:
    d = tree(p / "d", {"a.png": P})
    os.mkfifo(d / "a.txt")
    return d


@case(r"neither a file nor a folder")
def device_path(p: Path) -> Path:
    return Path("/dev/null")


@case(r"1 of the 2 .*b\.png")
def socket_in_folder(p: Path) -> Path:
    d = tree(p / "d", {"a.png": P})
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(d / "b.png"))
    return d


@case(1)
def dir_named_png(p: Path) -> Path:
    return tree(p / "d", {"a.png/x.png": P})


@case(2)
def link_out(p: Path) -> Path:
    tree(p / "out", {"secret.png": P})
    d = tree(p / "d", {"a.png": Q})
    (d / "l.png").symlink_to(p / "out" / "secret.png")
    return d


@case(r"b\.png \(.*Too many levels")
def link_self(p: Path) -> Path:
    d = tree(p / "d", {"a.png": P})
    (d / "b.png").symlink_to(d / "b.png")
    return d


@case(1)
def long_name(p: Path) -> Path:
    return tree(p / "d", {"a" * 240 + ".png": P})


@case(r"a\\nb\.png \(no picture\)")
def newline_name(p: Path) -> Path:
    return tree(p / "d", {"a\nb.png": b"x"})


@case(r"a\\x1b\[31m\.png \(no picture\)")
def escape_name(p: Path) -> Path:
    return tree(p / "d", {"a\x1b[31m.png": b"x"})


@case(1)
def caption_not_utf8(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "a.txt": b"\xff\xfe\x00x"})


@case(r"metadata\.csv cannot be read")
def metadata_not_utf8(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "metadata.csv": b"file_name,text\na.png,\xff\n"})


@case(1)
def metadata_bom(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "metadata.csv": "\ufefffile_name,text\na.png,hello\n".encode()})


@case(r"which is not there")
def metadata_slip(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "metadata.jsonl": b'{"file_name": "../a.png"}'})


@case(1)
def metadata_double(p: Path) -> Path:
    return tree(
        p / "d", {"a.png": P, "metadata.jsonl": b'{"file_name": "a.png","label":1}\n{"file_name": "a.png","label":2}'}
    )


@case(1)
def metadata_nested_label(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "metadata.jsonl": b'{"file_name": "a.png","label":{"x":[1]}}'})


@case(r"metadata\.csv cannot be read .*field larger")
def metadata_huge_field(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "metadata.csv": b"file_name,text\na.png," + b"x" * 200_000})


@case(1)
def edm_null_labels(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "dataset.json": b'{"labels": null}'})


@case(r"dataset\.json describes z\.png, which is not there")
def edm_unknown_file(p: Path) -> Path:
    return tree(p / "d", {"a.png": P, "dataset.json": b'{"labels": [["z.png",1]]}'})


@case(r"a\.jpg \(image file is truncated")
def jpeg_truncated(p: Path) -> Path:
    d = png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "jpeg")
    return tree(p / "d", {"a.jpg": d[: len(d) // 2]})


@case(r"no picture")
def gif_no_frames(p: Path) -> Path:
    return tree(p / "d", {"a.gif": b"GIF89a\x04\x00\x04\x00\x00\x00\x00;"})


@case(r"holds no pictures")
def svg(p: Path) -> Path:
    return tree(p / "d", {"a.svg": b"<svg/>"})


@case(r"no picture")
def html_as_png(p: Path) -> Path:
    return tree(p / "d", {"a.png": b"<html>404</html>"})


@case(r"a\.png \(no picture\)")
def eps_as_png(p: Path) -> Path:
    return tree(p / "d", {"a.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"})


@case(r"floating-point pixels")
def tiff_float(p: Path) -> Path:
    b = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(b, "tiff")
    return tree(p / "d", {"a.tif": b.getvalue()})


@case(r"Decompressed data too large")
def png_text_bomb(p: Path) -> Path:
    i = PngImagePlugin.PngInfo()
    i.add_text("x", "a" * 70_000_000, zip=True)
    b = io.BytesIO()
    Image.fromarray(G).save(b, "png", pnginfo=i)
    return tree(p / "d", {"a.png": b.getvalue()})


@case(r"no picture")
def zero_size_png(p: Path) -> Path:
    d = bytearray(P)
    d[16:24] = b"\0" * 8
    d[29:33] = zlib.crc32(d[12:29]).to_bytes(4, "big")
    return tree(p / "d", {"a.png": bytes(d)})


@case(2)
def case_doubles_in_zip(p: Path) -> Path:
    return zipf(p, [("A.png", P), ("a.png", Q)])


@case(1)
def appledouble_zip(p: Path) -> Path:
    return zipf(p, [("a.png", P), ("__MACOSX/._a.png", b"x"), ("._a.png", b"x"), (".DS_Store", b"x")])


@case(r"holds no pictures")
def path_empty_dir_tree(p: Path) -> Path:
    d = p / "d"
    (d / "x" / "y").mkdir(parents=True)
    return d


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CASES)
def test_hostile_collections_are_read_as_documented_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, expected = CASES[name]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    before = sorted((tmp_path / "in").rglob("*"))
    settings = Packing(PictureDecoder(4), test_share=0)
    if isinstance(expected, int):
        assert pack(path, settings, tmp_path / "cache", show=False).train == expected
    else:
        with pytest.raises((ValueError, OSError)) as error:
            pack(path, settings, tmp_path / "cache", show=False)
        assert re.search(expected, str(error.value)), str(error.value)
        assert str(error.value).isprintable()
        assert not list((tmp_path / "cache").glob("pictures/[!.]*"))
    assert sorted((tmp_path / "in").rglob("*")) == before
    assert {one.name for one in tmp_path.iterdir()} <= {"in", "cache"}, "nothing is written elsewhere"
