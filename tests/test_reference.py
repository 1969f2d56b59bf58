"""Reference statistics of very many pictures: read in batches, computed by one process, resumed after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffsweep.data.examples import Examples
from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.evaluation.reference import Library, Reference
from diffsweep.scoring import reference_lease
from diffsweep.sweep.store import alone as store_alone

PROGRAM = Path(__file__).parent / "programs" / "killed_reference.py"
BATCH = 7


class Means(nn.Module):
    """Four features of a picture; counts the pictures that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x.float().flatten(1).unflatten(1, (4, -1)).mean(dim=2)


def pictures() -> Examples:
    draw = torch.Generator().manual_seed(0)
    return Examples(torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8, generator=draw), torch.arange(100) % 3)


def library(network: nn.Module, cache: Path, **settings: Any) -> Library:
    extractor = Extractor(network, "means", 4, sha256("means"))
    given: dict[str, Any] = {"alone": reference_lease.alone} | settings
    return Library(extractor, ["features"], cache, given.pop("batch_size", BATCH), **given)


def file_of(reference: Reference) -> bytes:
    assert reference.file is not None
    return reference.file.read_bytes()


def killed(cache: Path, after: int) -> None:
    words, tests = [sys.executable, str(PROGRAM), str(cache), str(after)], str(Path(__file__).parent)
    ended = subprocess.run(words, env=os.environ | {"PYTHONPATH": tests}, check=False)
    assert ended.returncode == -9


def test_a_reference_that_was_killed_goes_on_from_where_it_was_and_is_the_same_to_the_last_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = file_of(library(Means(), tmp_path / "whole").reference(pictures()))
    killed(tmp_path / "cache", 40)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lease"]
    network = Means()
    found = library(network, tmp_path / "cache").reference(pictures())
    assert (file_of(found), network.seen) == (expected, 100 - 42)
    assert "real data: features of 42 of 100 were there already" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == [found.file]


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("harm", "batch_size"),
    [(shortened, BATCH), (Path.unlink, BATCH), (lambda path: None, 9)],
    ids=["damaged", "absent", "of another batch size"],
)
def test_parts_that_are_damaged_or_of_another_batch_size_are_not_used(
    harm: Callable[[Path], None], batch_size: int, tmp_path: Path
) -> None:
    expected = file_of(library(Means(), tmp_path / "whole", batch_size=batch_size).reference(pictures()))
    killed(tmp_path / "cache", 40)
    harm(next((tmp_path / "cache").glob("*.lease/partial-*")))
    network = Means()
    assert file_of(library(network, tmp_path / "cache", batch_size=batch_size).reference(pictures())) == expected
    assert network.seen == 100


class Slow(Means):
    """Stops at the first batch until somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.began.set()
        assert self.go_on.wait(60)
        return super().forward(x)


def test_whoever_wants_what_another_computes_waits_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Slow(), Means()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        first.go_on.set()

    monkeypatch.setattr(store_alone, "say", say)
    found: list[Reference] = []
    worker = threading.Thread(target=lambda: found.append(library(first, tmp_path).reference(pictures())))
    worker.start()
    assert first.began.wait(60)
    mine = library(second, tmp_path).reference(pictures())
    worker.join(60)
    assert (first.seen, second.seen) == (100, 0)
    assert torch.equal(mine.moments().cov, found[0].moments().cov)
    assert len(said) == 1
    assert said[0].startswith("real data: process ")
    assert said[0].endswith(" computes their statistics; waiting for it")
    assert list(tmp_path.iterdir()) == [mine.file]


def test_where_nothing_can_be_written_the_numbers_are_the_same_and_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = library(Means(), tmp_path).reference(pictures())
    # Nobody makes folders there, root neither.
    place = Path("/sys/diffsweep")
    found = library(Means(), place, save_seconds=0.0).reference(pictures())
    assert torch.equal(found.moments().cov, expected.moments().cov)
    assert found.keep("what", lambda: {"one": 1.0}) == {"one": 1.0}
    err = capsys.readouterr().err
    assert "careful: cannot write to /sys/diffsweep" in err
    assert err.count("\n") == 1


def test_a_reference_in_a_folder_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    library(Means(), tmp_path).reference(pictures())
    network = Means()

    def refuse(folder: Path) -> Any:
        raise AssertionError("there is nothing to compute")

    assert library(network, tmp_path, alone=refuse).reference(pictures()).n == 100
    assert network.seen == 0


class Counted:
    """Pictures that are read by number, a batch at a time; there is no way to get all of them."""

    def __init__(self) -> None:
        self.examples = pictures()
        self.labels = self.examples.labels
        self.taken: list[int] = []

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, numbers: Tensor) -> Examples:
        self.taken.append(len(numbers))
        return self.examples.take(numbers)

    def digest(self) -> str:
        return self.examples.digest()


def test_pictures_are_read_a_batch_at_a_time(tmp_path: Path) -> None:
    source = Counted()
    found = library(Means(), tmp_path / "one").reference(source)
    assert source.taken == [7] * 14 + [2]
    assert file_of(found) == file_of(library(Means(), tmp_path / "other").reference(pictures()))
