"""`dataset=images`: a user's own pictures, in every format, odd, broken, replaced; and `diffsweep data`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from pyarrow import parquet as pq

import forked_runs
from collections_made import COUNT, FORMATS, as_folder, as_zip, digits, files, write_tree
from diffsweep.commands import main
from diffsweep.data.collections import pictures
from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.decoders import PictureDecoder
from diffsweep.data.images import Images
from diffsweep.data.packed import Packed
from diffsweep.data.packed_source import PackedSource
from diffsweep.data.packing import Packing, pack
from diffsweep.settings import SPLITS
from diffsweep.sweep.store.signature import fit_signature

CONF = Path(__file__).parent.parent / "conf"
TINY = ["training.steps=2", "backbone.width=8", "evaluation.samples=8", "extractor=digits", "trainer.progress=false"]


def run_train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python train.py WORD ...` in the folder."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return forked_runs.run([str(CONF.parent / "train.py"), *words], folder, environment, 300)


def packed(path: Path, cache: Path, **settings: Any) -> Packed:
    chosen: dict[str, Any] = {"size": 8} | settings
    rest = {key: chosen.pop(key) for key in ("labels", "broken", "test_share") if key in chosen}
    return pack(path, Packing(PictureDecoder(**chosen), **rest), cache, show=False)


def png(pixels: np.ndarray, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **settings)
    return buffer.getvalue()


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    place = tmp_path_factory.mktemp("reference")
    return packed(as_folder(place), place / "cache")


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_pictures_are_the_same_data_in_every_format(name: str, tmp_path: Path, reference: Packed) -> None:
    found = packed(FORMATS[name](tmp_path), tmp_path / "cache")
    assert found.content == reference.content
    assert (found.shape, found.class_names) == ((1, 8, 8), tuple("0123456789"))
    for split in ("train", "test"):
        here, there = (PackedSource(one, split).mapped() for one in (found, reference))
        assert torch.equal(here.x, there.x)
        assert torch.equal(here.labels, there.labels)
        assert PackedSource(found, split).digest() == PackedSource(reference, split).digest()


def test_what_is_packed_are_the_pixels_and_labels_that_there_were(reference: Packed) -> None:
    images, labels = digits()
    expected = sorted((pixels.tobytes(), int(label)) for pixels, label in zip(images, labels, strict=True))
    both = [PackedSource(reference, split).mapped() for split in SPLITS]
    got = sorted(
        (one.numpy().tobytes(), int(label)) for some in both for one, label in zip(some.x, some.labels, strict=True)
    )
    assert got == expected
    assert reference.train + reference.test == COUNT
    assert 0 < reference.test < COUNT / 3
    x = both[0].x.double() / 127.5 - 1
    assert reference.sigma_data == pytest.approx(float(x.square().mean().sqrt()), rel=1e-3)


def test_the_choice_of_held_out_pictures_stays_when_some_are_added(tmp_path: Path, reference: Packed) -> None:
    folder = as_folder(tmp_path)
    write_tree(folder, {f"0/more{i}.png": png(np.full((8, 8), i, np.uint8)) for i in range(40)})
    more = packed(folder, tmp_path / "cache")
    assert more.content != reference.content
    before, after = (
        {one.numpy().tobytes() for one in PackedSource(packed, "test").mapped().x} for packed in (reference, more)
    )
    assert before <= after


def test_given_splits_and_classes_of_folders(tmp_path: Path) -> None:
    content = {f"{'train' if i % 3 else 'val'}/{name}": data for i, (name, data) in enumerate(files().items())}
    found = packed(write_tree(tmp_path / "data", content), tmp_path / "cache")
    assert (found.train, found.test) == (40, 20)
    assert found.classes == 10


def test_descriptions_beside_the_pictures(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    content = {name: png(np.full((4, 4), i, np.uint8)) for i, name in enumerate(names)}
    rows = [{"file_name": "a.png", "text": "a red heart", "label": "x"}, {"file_name": "b.png", "label": "y"}]
    content["metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    content["c.txt"] = b"a cat\n"
    found = {one.name: (one.label, one.caption) for one in pictures(write_tree(tmp_path, content))}
    assert found == {"a.png": ("x", "a red heart"), "b.png": ("y", None), "c.png": (None, "a cat")}


def test_captions_are_packed_and_taken_with_their_pictures(tmp_path: Path) -> None:
    content = {f"{i}.png": png(np.full((4, 4), i, np.uint8)) for i in range(20)}
    content |= {f"{i}.txt": f"number {i} ☃".encode() for i in range(0, 20, 2)}
    folder = write_tree(tmp_path / "data", content)
    found = packed(folder, tmp_path / "cache", size=4)
    assert found.captions == 10
    source = PackedSource(found, "train")
    some = source.take(torch.arange(len(source)).flip(0))
    captions = [f"number {int(x[0, 0, 0])} ☃" if int(x[0, 0, 0]) % 2 == 0 else "" for x in some.x]
    assert some.entries == {"caption": captions}
    (folder / "0.txt").write_text("another text")
    assert packed(folder, tmp_path / "cache", size=4).content != found.content


def test_a_dataset_that_hugging_face_has_saved_to_disk(tmp_path: Path, reference: Packed) -> None:
    """The files of `DatasetDict.save_to_disk`: arrow streams, and what was computed beside them."""
    import pyarrow

    table = pq.read_table(FORMATS["parquet"](tmp_path))
    for split, some in (("train", table.slice(0, 40)), ("test", table.slice(40))):
        folder = write_tree(tmp_path / "saved" / split, {"state.json": b"{}", "dataset_info.json": b"{}"})
        for name in ("data-00000-of-00001.arrow", "cache-0123.arrow"):
            with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(some)
    write_tree(tmp_path / "saved", {"dataset_dict.json": b'{"splits": ["train", "test"]}'})
    found = packed(tmp_path / "saved", tmp_path / "cache")
    assert (found.train, found.test, found.class_names) == (40, 20, reference.class_names)


def test_a_parquet_file_is_read_by_groups_of_rows(tmp_path: Path, reference: Packed) -> None:
    table = pq.read_table(FORMATS["parquet"](tmp_path))
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=7)
    assert packed(tmp_path / "groups.parquet", tmp_path / "cache").content == reference.content


def test_a_collection_of_the_hub_is_fetched_by_name(
    tmp_path: Path, reference: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, repo_type: str) -> str:
        asked.append((name, repo_type))
        return str(as_folder(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert packed(Path("hf://somebody/digits"), tmp_path / "cache").content == reference.content
    assert asked == [("somebody/digits", "dataset")]

    def offline(name: str, repo_type: str) -> str:
        raise OSError("no connection. And so on.\nAnd on.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"^hf://a/b cannot be fetched \(no connection\): where there is no hub, copy"):
        packed(Path("hf://a/b"), tmp_path / "cache")


# --- single pictures ------------------------------------------------------------------------------------------------


def saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


GRADIENT = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
HALF = np.dstack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 128, np.uint8)])
DEEP = Image.fromarray(np.array([[0, 257, 65535, 128 * 257 + 120]], np.uint16))
FRAMES = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(GRADIENT), "png", exif=exif)


@pytest.mark.parametrize(
    ("content", "channels", "expected"),
    [
        pytest.param(png(GRADIENT), 3, GRADIENT.transpose(2, 0, 1), id="colours"),
        pytest.param(png(GRADIENT[..., 0]), 3, np.stack([GRADIENT[..., 0]] * 3), id="grey as colours"),
        pytest.param(png(GRADIENT[..., 0]), 1, GRADIENT[None, ..., 0], id="grey"),
        pytest.param(png(HALF), 3, np.full((3, 2, 2), 127, np.uint8), id="transparency is laid over white"),
        pytest.param(png(HALF), 4, HALF.transpose(2, 0, 1), id="opacity is kept"),
        pytest.param(saved(DEEP, "png"), 1, np.array([[[0, 1, 255, 128]]], np.uint8), id="16 bits"),
        pytest.param(
            saved(Image.fromarray(GRADIENT).quantize(16), "png"), 3, GRADIENT.transpose(2, 0, 1), id="palette"
        ),
        pytest.param(turned(), 3, np.rot90(GRADIENT, -1).transpose(2, 0, 1), id="EXIF rotation"),
        pytest.param(saved(Image.fromarray(GRADIENT), "tiff"), 3, GRADIENT.transpose(2, 0, 1), id="TIFF"),
        pytest.param(
            saved(Image.fromarray(GRADIENT), "webp", lossless=True), 3, GRADIENT.transpose(2, 0, 1), id="WebP"
        ),
        pytest.param(
            saved(FRAMES[0], "gif", save_all=True, append_images=FRAMES[1:]),
            3,
            np.array([255, 0, 0], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2),
            id="first frame of an animation",
        ),
        pytest.param(
            saved(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "tiff"),
            3,
            np.array([255, 0, 0], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2),
            id="CMYK",
        ),
    ],
)
def test_every_kind_of_picture_is_defined(content: bytes, channels: Any, expected: np.ndarray) -> None:
    assert np.array_equal(PictureFormat(None, channels).decode(content), expected)


def test_avif_is_read() -> None:
    picture = Image.new("RGB", (16, 16), (200, 30, 60))
    got = PictureFormat(None).decode(saved(picture, "avif", quality=90))
    assert np.abs(got.astype(int).mean(axis=(1, 2)) - [200, 30, 60]).max() < 8


def test_resizing_takes_the_middle_or_stretches() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert PictureFormat(8).decode(png(wide)).min() == 255
    stretched = PictureFormat(8, 3, "stretch").decode(png(wide))
    assert stretched.min() == 0
    assert stretched[:, :, 3:5].min() > 200


# --- odd and hostile collections ------------------------------------------------------------------------------------

GOOD = {"good.png": png(GRADIENT)}
BOMB = zipfile.ZIP_DEFLATED


def bomb(place: Path) -> Path:
    """A zip whose entry says that it unpacks to two gigabytes."""
    path = place / "bomb.zip"
    with zipfile.ZipFile(path, "w", BOMB) as archive:
        archive.writestr("a.png", b"\0" * 1000)
    content = bytearray(path.read_bytes())
    place_of_size = content.rindex(b"PK\x01\x02") + 24
    content[place_of_size : place_of_size + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def huge(place: Path) -> Path:
    """A PNG of a kilobyte that says that it is 60,000 pixels a side."""
    data = bytearray(png(GRADIENT))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return write_tree(place / "huge", {"a.png": bytes(data)})


def array(place: Path, values: Any) -> Path:
    np.save(place / "x.npy", values)
    return place / "x.npy"


def tree(content: dict[str, bytes]) -> Callable[[Path], Path]:
    return lambda place: write_tree(place / "data", content)


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    return lambda place: write_tree(place, {name: content}) / name


def dead_link(place: Path) -> Path:
    folder = write_tree(place / "data", {})
    folder.mkdir()
    (folder / "a.png").symlink_to(place / "nowhere.png")
    return folder


def mixed_labels(place: Path) -> Path:
    row = json.dumps({"file_name": "a.png", "label": 1}).encode()
    return write_tree(place / "d", {"a.png": png(GRADIENT), "b.png": png(GRADIENT[::-1]), "metadata.jsonl": row})


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda place: place / "absent", "there is no file or folder"),
    "an empty folder": (lambda place: write_tree(place / "data", {"notes.md": b"x"}), "holds no pictures"),
    "hidden files only": (tree({"._a.png": b"x", ".DS_Store": b"x", "__MACOSX/a.png": b"x"}), "holds no pictures"),
    "an empty file": (tree({"a.png": b""}), r"a\.png \(empty file\)"),
    "no picture": (tree({"a.png": b"hello"}), r"a\.png \(no picture\)"),
    "cut short": (tree({"a.png": png(GRADIENT)[:50]}), r"a\.png \("),
    "one of two broken": (tree(GOOD | {"b.png": b"x"}), r"1 of the 2 .*b\.png \(no picture\); dataset\.broken=skip"),
    "a picture far too large": (huge, "a.png .*(exceeds|bomb)"),
    "a dead link": (dead_link, "a link to nowhere"),
    "a zip bomb": (bomb, "more than any picture|cannot be read"),
    "no zip": (file("a.zip", b"PK nonsense"), "no zip archive that can be read"),
    "no tar": (file("a.tar", b"nonsense" * 100), "no tar archive that can be read"),
    "no parquet": (file("a.parquet", b"PAR1 nonsense PAR1"), "no table that can be read"),
    "no npz": (file("a.npz", b"nonsense"), "no array that can be read"),
    "a pickle": (lambda place: array(place, np.array([{}])), "no array that can be read"),
    "floats": (lambda place: array(place, np.zeros((2, 4, 4))), "float64 .*must be uint8"),
    "five axes": (lambda place: array(place, np.zeros((1, 1, 1, 1, 1), np.uint8)), "save images as"),
    "axes that mean two things": (lambda place: array(place, np.zeros((2, 3, 4, 3), np.uint8)), "save images as"),
    "a single picture": (file("a.png", png(GRADIENT)), "give its folder"),
    "another kind of file": (file("a.docx", b"x"), "none of .zip"),
    "metadata that is no JSON": (tree(GOOD | {"metadata.jsonl": b"{"}), "metadata.jsonl cannot be read"),
    "metadata without names": (tree(GOOD | {"metadata.jsonl": b'{"a": 1}'}), "without file_name"),
    "metadata of what is not there": (
        tree(GOOD | {"metadata.csv": b"file_name,label\nz.png,1\n"}),
        "which is not there",
    ),
    "a broken dataset.json": (tree(GOOD | {"dataset.json": b'{"labels": [1]}'}), "dataset.json is not"),
    "deeply nested JSON": (tree(GOOD | {"metadata.jsonl": b"[" * 100_000}), "metadata.jsonl cannot be read"),
    "some without a class": (mixed_labels, "have no class, and the others have"),
    "no bytes in a table": (file("a.parquet", b""), "no table that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_data_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        packed(path, tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("pictures/[!.]*")), "nothing half made is there to be found"


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "data", {"a.png": png(GRADIENT), "b.png": png(GRADIENT[:2])})
    with pytest.raises(ValueError, match=r"different sizes, as 4x4 and 4x2 \(b\.png\): dataset\.size=64"):
        packed(folder, tmp_path / "cache", size=None)


def test_broken_pictures_are_left_out_when_that_is_said(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "data", {**files(), "0/broken.png": b"x", "1/empty.png": b""})
    found = packed(folder, tmp_path / "cache", broken="skip")
    assert (found.train + found.test, found.broken) == (COUNT, 2)
    assert packed(folder, tmp_path / "cache", broken="skip").broken == 2


ACCEPTED: dict[str, dict[str, bytes]] = {
    "names with spaces and letters of all kinds": {"a b/ä ö ☃.png": png(GRADIENT)},
    "names that differ in case only": {"A.png": png(GRADIENT), "a.png": png(GRADIENT[::-1])},
    "files of the system beside": {**GOOD, ".DS_Store": b"x", "._good.png": b"x", "Thumbs.db": b"x", "notes.md": b"x"},
    "upper-case suffixes": {"A.PNG": png(GRADIENT)},
    "the wrong suffix": {"a.jpg": png(GRADIENT)},
    "one pixel": {"a.png": png(GRADIENT[:1, :1])},
    "a very wide one": {"a.png": png(np.zeros((1, 500, 3), np.uint8))},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_collections_that_are_data(name: str, tmp_path: Path) -> None:
    content = ACCEPTED[name]
    found = packed(write_tree(tmp_path / "data", content), tmp_path / "cache", test_share=0)
    wanted = [name for name in content if Path(name).suffix.lower() in (".png", ".jpg") and "._" not in name]
    assert found.train == len(wanted)


def test_a_name_that_is_no_text_is_read_and_shown(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "data")
    os.mkdir(folder)  # noqa: PTH102 - a name of bytes
    for name, content in ((b"\xff\xfe.png", png(GRADIENT)), (b"\xfe.png", b"x")):
        with open(os.path.join(folder, name), "wb") as stream:  # noqa: PTH118, PTH123
            stream.write(content)
    with pytest.raises(ValueError, match=r"\\udcfe\.png \(no picture\)"):
        packed(tmp_path / "data", tmp_path / "cache")
    assert packed(tmp_path / "data", tmp_path / "cache", broken="skip", test_share=0).train == 1


def test_a_link_back_up_does_not_end_the_world(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "data", {"a/x.png": png(GRADIENT)})
    (folder / "a" / "loop").symlink_to(folder)
    assert packed(folder, tmp_path / "cache", test_share=0).train == 1


# --- identity -------------------------------------------------------------------------------------------------------


def test_the_second_look_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_folder(tmp_path)
    first = packed(folder, tmp_path / "cache")
    monkeypatch.setattr(PictureFormat, "read", lambda *_: pytest.fail("decoded again"))
    assert packed(folder, tmp_path / "cache") == first


def test_a_replaced_picture_is_other_data(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    first = packed(folder, tmp_path / "cache")
    (folder / "0" / "0.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    assert packed(folder, tmp_path / "cache").content != first.content


def test_a_touched_picture_is_the_same_data(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    first = packed(folder, tmp_path / "cache")
    os.utime(folder / "0" / "0.png", (1, 1))
    assert packed(folder, tmp_path / "cache").content == first.content


def composed(path: Path, cache: Path, *overrides: str) -> Any:
    words = ["dataset=images", f"dataset.path={path}", "dataset.size=8", f"paths.cache={cache}", "extractor=digits"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*words, *overrides])


def test_the_content_names_the_training_and_the_place_does_not(tmp_path: Path) -> None:
    places = [as_folder(tmp_path), as_zip(tmp_path)]
    same = {fit_signature(composed(place, tmp_path / f"cache{i}")) for i, place in enumerate(places)}
    assert len(same) == 1
    (places[0] / "0" / "0.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    # Another process: this one sees one state of a collection.
    moved = places[0].rename(tmp_path / "moved")
    assert fit_signature(composed(moved, tmp_path / "cache")) not in same
    assert fit_signature(composed(places[1], tmp_path / "cache1", "dataset.labels=none")) not in same


def dataset_of(cfg: Any) -> Images:
    settings: dict[str, Any] = {key: cfg.dataset[key] for key in cfg.dataset if key != "_target_"}
    return Images(**settings)


def test_a_run_refuses_pictures_that_have_changed_since(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    dataset = dataset_of(composed(folder, tmp_path / "cache"))
    assert len(dataset.load("train")) + len(dataset.load("test")) == COUNT
    (folder / "0" / "0.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    # What is packed is still what the run was planned with.
    assert len(dataset.load("train")) + len(dataset.load("test")) == COUNT
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ValueError, match="are no longer those of this run"):
        dataset.load("train")


# --- by the door that users come by ---------------------------------------------------------------------------------


def test_a_training_on_own_pictures_is_found_again_in_another_format(tmp_path: Path) -> None:
    words = ["dataset=images", "dataset.size=8", *TINY]
    first = run_train(tmp_path, f"dataset.path={as_folder(tmp_path)}", *words)
    assert first.returncode == 0, first.stderr
    again = run_train(tmp_path, f"dataset.path={as_zip(tmp_path)}", *words)
    assert again.returncode == 0
    assert "already done" in again.stderr
    config = next((tmp_path / "runs").glob("fits/*/config.yaml")).read_text()
    assert "content: " in config


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["dataset.path=absent"], "there is no file or folder absent"),
        ([], "the config is not complete at dataset.path: it has no value: give it one, as dataset.path=..."),
        (["dataset.path=.", "dataset.size=0"], "dataset.size=0 must be a whole number, 1 or more"),
        (["dataset.path=.", "dataset.crop=centre"], "dataset.crop=centre is unknown: did you mean center? It must be"),
        (["dataset.path=.", "dataset.test_share=1"], "dataset.test_share=1 must be at least 0 and below 1"),
    ],
)
def test_mistakes_cost_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = run_train(tmp_path, "dataset=images", *words)
    assert (done.returncode, done.stdout) == (2, "")
    said = [text for text in done.stderr.splitlines() if text]
    assert len(said) == 1, done.stderr
    assert line in said[0]


def test_diffsweep_data_tells_what_is_there_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_folder(tmp_path)
    (folder / "0" / "bad.png").write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "folder", "--size", "8"]) == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    for line in (
        "pictures      61",
        "formats       PNG 60",
        "classes       10: ",
        "broken        1",
        "colours       grey",
    ):
        assert line in said
    assert "0/bad.png: no picture" in said
    assert "diffsweep train dataset=images dataset.path=folder dataset.size=8 dataset.broken=skip" in said
    assert main(["data", "folder", "--size", "8", "--sheet", "sheet.png"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 12 * 10


def test_a_broken_picture_is_no_picture() -> None:
    with pytest.raises(BrokenPictureError, match="no picture"):
        PictureFormat(8).decode(b"hello")
