"""Images per second from every form of a collection, beside what peers reach from their own best form.

All read the same real pictures, decode them with Pillow, bring them to 64x64 with its antialiased bicubic filter, and
give shuffled batches of uint8 with labels. Contestants take turns; a number is the median over the rounds.

    pip install -e '.[benchmark,parquet]'
    python benchmarks/data_speed.py --pictures /usr/share/backgrounds     # any folder of photographs
    python benchmarks/data_speed.py --million --pictures FOLDER           # memory and times at a million pictures
    python benchmarks/data_speed.py --million 200000 --form zip --list-only --pictures FOLDER
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffsweep.data.collections import pictures
from diffsweep.data.decoders import PictureDecoder
from diffsweep.data.packed_source import PackedSource, RandomCrops
from diffsweep.data.packing import Packing, pack
from diffsweep.data.source import Source, in_memory
from diffsweep.settings import LoadingSettings, TrainingSettings
from diffsweep.training.batches import Batches

SIZE, BATCH, WORKERS = 64, 64, 2
CPU = torch.device("cpu")


def crops(folder: Path, count: int, side: int = 160) -> list[bytes]:
    """JPEG files of real photographs: squares cut out of the pictures in a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    photographs = []
    for path in found[:40]:
        with Image.open(path) as picture:
            if min(picture.size) >= 2 * side:
                photographs.append(picture.convert("RGB"))
    draw, files = np.random.default_rng(0), []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        left, top = (int(draw.integers(0, size - side)) for size in photograph.size)
        buffer = io.BytesIO()
        photograph.crop((left, top, left + side, top + side)).save(buffer, "jpeg", quality=90)
        files.append(buffer.getvalue())
    return files


def write_forms(files: list[bytes], place: Path) -> dict[str, Path]:
    """The same pictures as folder, zip, tar and parquet, in ten classes."""
    import pyarrow
    from pyarrow import parquet

    forms = {name: place / f"data.{name}" for name in ("folder", "zip", "tar", "parquet")}
    with zipfile.ZipFile(forms["zip"], "w") as archive, tarfile.open(forms["tar"], "w") as tape:
        for number, data in enumerate(files):
            name = f"{number % 10}/{number:06d}.jpg"
            (forms["folder"] / name).parent.mkdir(parents=True, exist_ok=True)
            (forms["folder"] / name).write_bytes(data)
            archive.writestr(name, data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tape.addfile(info, io.BytesIO(data))
    table = {"image": [{"bytes": data, "path": None} for data in files], "label": [i % 10 for i in range(len(files))]}
    parquet.write_table(pyarrow.table(table), forms["parquet"], row_group_size=100)
    return forms


def draw(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """No noise: of a batch only the data count here."""
    return torch.zeros(shape[0]), torch.zeros(shape[0], 1)


def training_settings(steps: int, batch_size: int) -> TrainingSettings:
    """Of a training of which only the batches are wanted."""
    return TrainingSettings(
        steps=steps,
        batch_size=batch_size,
        warmup=0,
        decay="constant",
        clip=None,
        flip=False,
        ema_decay=0.999,
        seed=0,
    )


def batches(source: Source, images: int, loading: LoadingSettings | None) -> Iterator[Any]:
    settings = training_settings(images // BATCH, BATCH)
    return iter(Batches(source, draw, settings, loading=loading))


def ours(forms: dict[str, Path], cache: Path) -> dict[str, Callable[[int], Iterator[Any]]]:
    """From each form by decoding anew, as for random crops; packed and read ahead; in memory."""
    ahead, chosen = LoadingSettings(0, WORKERS, 4), Packing(PictureDecoder(SIZE), test_share=0)
    packed = PackedSource(pack(forms["folder"], chosen, cache), "train")
    sources: dict[str, tuple[Source, LoadingSettings | None]] = {}
    for name, path in forms.items():
        found = pictures(path)
        source = RandomCrops(packed, found, PictureDecoder(SIZE).picture_format(3))
        sources[f"diffsweep {name}"] = source, ahead
    sources["diffsweep packed, read ahead"] = packed, ahead
    sources["diffsweep packed, mapped"] = packed.mapped(), None
    sources["diffsweep in memory"] = in_memory(packed, CPU).take(torch.arange(len(packed))), None
    return {name: lambda n, pair=pair: batches(pair[0], n, pair[1]) for name, pair in sources.items()}


class ToPixels:
    """A picture as peers' transforms have it, in another process too."""

    def __call__(self, picture: Image.Image) -> Tensor:
        small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    def rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"image": [self(picture) for picture in rows["image"]], "label": rows["label"]}


def cut(loader: Callable[[], Iterator[Any]], images: int) -> Iterator[Any]:
    """So many images, in as many epochs as that takes."""
    left = images
    while left > 0:
        for batch in loader():
            yield batch
            left -= BATCH
            if left <= 0:
                return


def stored_pixels(index: int, x: np.ndarray) -> dict[str, Any]:
    """An example as litdata stores it in its best form: decoded, uint8."""
    return {"image": torch.from_numpy(x[index].copy()), "label": index % 10}


def peers(forms: dict[str, Path], place: Path, x: np.ndarray) -> dict[str, Callable[[int], Iterator[Any]]]:
    """Each with two worker processes, and with what is quickest in its own documentation."""
    from functools import partial

    from datasets import Array3D, Dataset, Features, Value, load_dataset  # pyright: ignore[reportMissingImports]
    from datasets.utils.logging import disable_progress_bar  # pyright: ignore[reportMissingImports]
    from litdata import StreamingDataLoader, StreamingDataset, optimize  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    disable_progress_bar()
    found: dict[str, Callable[[int], Iterator[Any]]] = {}

    def loader(data: Any, workers: int = WORKERS) -> DataLoader[Any]:
        keep = workers > 0
        return DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=keep)

    folder = loader(ImageFolder(str(forms["folder"]), ToPixels()))
    found["torchvision ImageFolder"] = lambda n: cut(lambda: iter(folder), n)
    rows = load_dataset("imagefolder", data_dir=str(forms["folder"]), split="train", cache_dir=str(place / "hf"))
    decoded = loader(rows.with_transform(ToPixels().rows))  # pyright: ignore[reportAttributeAccessIssue]
    found["datasets, decoding"] = lambda n: cut(lambda: iter(decoded), n)
    features = Features({"image": Array3D((3, SIZE, SIZE), "uint8"), "label": Value("int64")})
    arrays = Dataset.from_dict({"image": list(x), "label": [i % 10 for i in range(len(x))]}, features=features)
    arrays.save_to_disk(str(place / "hf_arrays"))
    kept = Dataset.load_from_disk(str(place / "hf_arrays")).with_format("torch")
    for workers in (0, WORKERS):
        one = loader(kept, workers)
        found[f"datasets, uint8 arrays, {workers} workers"] = lambda n, one=one: cut(lambda: iter(one), n)
    optimize(partial(stored_pixels, x=x), list(range(len(x))), str(place / "lit"), chunk_bytes="64MB", num_workers=1)
    for workers in (0, WORKERS):
        stream = StreamingDataset(str(place / "lit"), shuffle=True, drop_last=True)
        two = StreamingDataLoader(stream, batch_size=BATCH, num_workers=workers)
        found[f"litdata, uint8 tensors, {workers} workers"] = lambda n, two=two: cut(lambda: iter(two), n)
    return found


def speed(contestant: Callable[[int], Iterator[Any]], seconds: float) -> float:
    """Images per second, after a first batch that starts whatever must be started."""
    stream, images = contestant(10**7), 0
    next(stream)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        next(stream)
        images += BATCH
    return images / (time.perf_counter() - started)


def waiting(source: Source, loading: LoadingSettings | None, steps: int = 12) -> float:
    """Share of the time of training steps of the default network at 64 pixels, batch 16, spent waiting for data."""
    from diffsweep.backbones import UNet

    network = UNet((3, SIZE, SIZE), width=32)
    settings = training_settings(steps, 16)
    waited, started = 0.0, time.perf_counter()
    stream = iter(
        Batches(source, lambda s, g: (torch.rand(s[0]), torch.randn(s, generator=g)), settings, loading=loading)
    )
    for step in range(steps):
        before = time.perf_counter()
        batch = next(stream)
        if step:
            waited += time.perf_counter() - before
        else:
            started = time.perf_counter()
        network(batch.x0 / 127.5 - 1, torch.zeros(16)).square().mean().backward()
    return waited / (time.perf_counter() - started)


def compare(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    files = crops(options.pictures, options.count)
    forms = write_forms(files, place)
    contestants = ours(forms, place / "cache")
    packed = PackedSource(pack(forms["folder"], Packing(PictureDecoder(SIZE), test_share=0), place / "cache"), "train")
    contestants |= peers(forms, place, packed.mapped().x.numpy())
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            found[name].append(speed(contestant, options.seconds))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ahead = LoadingSettings(0, WORKERS, 4)
    decoding = RandomCrops(packed, pictures(forms["folder"]), PictureDecoder(SIZE).picture_format(3))
    waits = {
        "packed, mapped": waiting(packed.mapped(), None),
        "packed, read ahead": waiting(packed, ahead),
        "folder, decoded anew": waiting(decoding, ahead),
    }
    return {"images_per_second": medians, "waiting": waits, "pictures": len(files), "rounds": options.rounds}


def write_repeated(files: list[bytes], form: str, count: int, place: Path) -> Path:
    """So many pictures, made by repeating these; those of a folder are hard links to one another."""
    import pyarrow
    from pyarrow import parquet

    path = place / f"many.{form}"
    if form == "parquet":
        table = pyarrow.table({"image": files, "label": [i % 10 for i in range(len(files))]})
        with parquet.ParquetWriter(path, table.schema) as writer:
            for _ in range(count // len(files)):
                writer.write_table(table, row_group_size=1000)
    elif form == "folder":
        for number in range(count):
            file = path / str(number % 10) / f"{number:07d}.jpg"
            if number < len(files):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(files[number])
            else:
                first = number % len(files)
                os.link(path / str(first % 10) / f"{first:07d}.jpg", file)
    else:
        with zipfile.ZipFile(path, "w") if form == "zip" else tarfile.open(path, "w") as archive:
            for number in range(count):
                name, data = f"{number % 10}/{number:07d}.jpg", files[number % len(files)]
                if isinstance(archive, zipfile.ZipFile):
                    archive.writestr(name, data)
                else:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return path


class Memory(threading.Thread):
    """Watches the memory of this process: its own, and pages of mapped files, which the system may take back.

    Figures are GB above what there was at the start, when the libraries were loaded.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._first = self._most = self._look()
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.02):
            self._most = np.maximum(self._most, self._look())

    def peaks(self) -> dict[str, float]:
        self._end.set()
        self.join()
        found = dict(zip(("own_gb", "mapped_gb"), (self._most - self._first).tolist(), strict=True))
        return found | {"peak_gb_in_all": self._status("VmHWM")}

    def _look(self) -> np.ndarray:
        return np.array([self._status("RssAnon"), self._status("RssFile")])

    @staticmethod
    def _status(key: str) -> float:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status[key].split()[0]) / 1e6


def phase(name: str, path: Path, cache: Path) -> dict[str, float]:
    """Time and peak memory of one step, in a process that does nothing else."""
    chosen, memory = Packing(PictureDecoder(SIZE), test_share=0.01), Memory()
    memory.start()
    started = time.perf_counter()
    if name == "list":
        pictures(path)
    else:
        packed = pack(path, chosen, cache)
        PackedSource(packed, "train")
    return {"seconds": time.perf_counter() - started} | memory.peaks()


def million(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """A million pictures of 64 pixels, made by repeating real ones: listed, packed, opened again, read."""
    some = []
    for data in crops(options.pictures, 2000):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
        some.append(buffer.getvalue())
    started = time.perf_counter()
    path, cache, found = write_repeated(some, options.form, options.million, place), place / "cache", {}
    found["write_seconds"] = time.perf_counter() - started
    steps = ("list",) if options.list_only else ("list", "pack", "open again")
    for name in steps:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            found[name] = alone.submit(phase, name, path, cache).result()
        print(name, found[name], flush=True)
    if not options.list_only:
        packed = pack(path, Packing(PictureDecoder(SIZE), test_share=0.01), cache)
        source, memory = PackedSource(packed, "train"), Memory()
        memory.start()
        read = speed(lambda n: batches(source, n, LoadingSettings(0, WORKERS, 4)), options.seconds)
        found["read"] = {"images_per_second": read} | memory.peaks()
        found["pictures"] = packed.train + packed.test
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--count", type=int, default=4000, help="squares that are cut out of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contestant in a round")
    parser.add_argument("--million", type=int, nargs="?", const=1_000_000, help="instead: so many pictures, packed")
    parser.add_argument("--form", choices=["folder", "zip", "tar", "parquet"], default="folder", help="of a million")
    parser.add_argument("--list-only", action="store_true", help="of a million: list them, pack nothing")
    parser.add_argument("--folder", type=Path, help="where to put everything, in place of a temporary folder")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = million(options, Path(folder)) if options.million else compare(options, Path(folder))
    print(json.dumps(found, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    main()
