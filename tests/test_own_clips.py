"""`dataset=video` and `dataset=audio`: a user's own videos and sounds, odd, broken, replaced; and `diffsweep data`."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import forked_runs
from clips_made import frame_folder, frames, gif_folder, wav_folder, write_gif, write_wav
from diffsweep.commands import main
from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.decoders import SoundDecoder, VideoDecoder
from diffsweep.data.packed_source import PackedSource
from diffsweep.data.packing import Packing, pack
from diffsweep.data.sound_format import SoundFormat
from diffsweep.data.video_format import VideoFormat, frame_count

ROOT = Path(__file__).parent.parent
TINY = ["training.steps=2", "training.warmup=0", "backbone.width=8", "evaluation.samples=4", "sampler.nfe=2"]
TINY += ["trainer.progress=false"]


def train(folder: Path, *words: str) -> Any:
    return forked_runs.run([str(ROOT / "train.py"), *TINY, *words], folder, dict(os.environ), 300)


def values(path: Path, packing: Packing, cache: Path) -> list[bytes]:
    packed = pack(path, packing, cache, show=False)
    sources = [PackedSource(packed, split) for split in ("train", "test")]
    return sorted(one.numpy().tobytes() for source in sources for one in source.take(torch.arange(len(source))).x)


def test_the_same_videos_are_the_same_data_as_gifs_in_a_zip_and_as_frames(tmp_path: Path) -> None:
    packing = Packing(VideoDecoder(8, 4), test_share=0.4)
    gifs = gif_folder(tmp_path)
    with zipfile.ZipFile(tmp_path / "gifs.zip", "w") as archive:
        for path in gifs.rglob("*.gif"):
            archive.write(path, path.relative_to(gifs))
    places = [gifs, frame_folder(tmp_path), tmp_path / "gifs.zip"]
    packed = [pack(place, packing, tmp_path / "cache", show=False) for place in places]
    assert len({one.content for one in packed}) == 1
    assert (packed[0].shape, packed[0].class_names, packed[0].train + packed[0].test) == ((1, 4, 8, 8), ("a", "b"), 12)
    expected = sorted(
        np.stack([np.asarray(one) for one in frames(seed)[:4]]).tobytes() for seed in [*range(6), *range(100, 106)]
    )
    assert values(gifs, packing, tmp_path / "cache") == expected
    strided = values(gifs, Packing(VideoDecoder(8, 2, stride=3)), tmp_path / "cache")
    assert np.asarray(frames(0)[3]).tobytes() in {one[64:] for one in strided}


def test_sounds_are_known_by_what_is_heard(tmp_path: Path) -> None:
    packing, cache = Packing(SoundDecoder(8000, 2048, normalize="none")), tmp_path / "cache"
    wavs = wav_folder(tmp_path)
    packed = pack(wavs, packing, cache, show=False)
    assert (packed.shape, packed.class_names) == ((1, 2048), ("high", "low"))
    for path in sorted(wavs.rglob("*.wav")):
        x, rate = soundfile.read(path, dtype="int16")
        other = tmp_path / "flacs" / path.relative_to(wavs).with_suffix(".flac")
        other.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(other, x, rate)
    assert pack(tmp_path / "flacs", packing, cache, show=False).content == packed.content
    x = PackedSource(packed, "train").take(torch.arange(packed.train)).x
    assert x.dtype == torch.int16
    assert packed.sigma_data == pytest.approx(float((x.double() / 32768).square().mean().sqrt()), rel=1e-3)
    # Peak brings every sound to full scale; another rate is another sound.
    loud = values(wavs, Packing(SoundDecoder(8000, 2048)), cache)
    assert {int(np.abs(np.frombuffer(one, np.int16).astype(int)).max()) for one in loud} == {32767}
    write_wav(wavs / "low" / "0.wav", 333)
    assert pack(wavs, packing, cache, show=False).content != packed.content


def wave(*channels: np.ndarray, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack(channels, axis=1), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


RAMP = np.arange(100) / 128


def test_what_becomes_of_a_sound() -> None:
    def decoded(content: bytes, **settings: Any) -> list[list[int]]:
        given: dict[str, Any] = {"sample_rate": 8000, "channels": 1, "length": 4, "normalize": "none"} | settings
        return SoundFormat(**given).decode(content).tolist()

    assert decoded(wave(RAMP)) == [[0, 256, 512, 768]]
    assert decoded(wave(RAMP), crop="center") == [[12288, 12544, 12800, 13056]]
    assert decoded(wave(RAMP[:2])) == [[0, 256, 0, 0]]
    assert decoded(wave(RAMP, -RAMP)) == [[0, 0, 0, 0]]
    assert decoded(wave(RAMP), channels=2) == [[0, 256, 512, 768]] * 2
    assert decoded(wave(RAMP, -RAMP, RAMP), channels=2) == [[0, 256, 512, 768], [0, -256, -512, -768]]
    assert decoded(wave(RAMP), normalize="peak") == [[0, 10922, 21845, 32767]]
    assert decoded(wave(4 * RAMP), length=100)[0][-1] == 32767
    assert decoded(wave(0 * RAMP), normalize="peak") == [[0, 0, 0, 0]]
    time = np.arange(48000) / 48000
    tone, alias = (0.5 * np.sin(2 * np.pi * f * time) for f in (1000, 7000))
    given = {"length": 8000}
    got = np.array(decoded(wave(tone, rate=48000), **given))[0, 100:-100] / 32768
    assert np.abs(got - 0.5 * np.sin(2 * np.pi * 1000 * np.arange(100, 7900) / 8000)).max() < 5e-3
    assert np.abs(np.array(decoded(wave(alias, rate=48000), **given))[0, 100:-100]).max() < 0.01 * 32768


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "Format not recognised"),
        (wave(RAMP)[:120], "cut short"),
        (wave(np.array([0.1, np.nan, 0.2])), "values that are not finite"),
        (wave(RAMP[:0]), "no samples"),
    ],
    # Not the bytes, which hold the time.
    ids=["empty", "text", "cut", "not finite", "no samples"],
)
def test_a_broken_sound_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenPictureError, match=reason):
        SoundFormat(8000, 1, 16).decode(content)


def test_what_becomes_of_a_video_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    made = VideoFormat(PictureFormat(None, 3), 3)
    colours = [Image.new("RGBA", (4, 4), colour) for colour in ("red", "#00ff0080", "blue")]
    buffer = io.BytesIO()
    colours[0].save(buffer, "webp", save_all=True, append_images=colours[1:], lossless=True)
    x = made.decode(buffer.getvalue())
    assert x[:, :, 0, 0].T.tolist() == [[255, 0, 0], [127, 255, 127], [0, 0, 255]]
    write_gif(tmp_path / "a.gif", 0, 4)
    whole = (tmp_path / "a.gif").read_bytes()
    for content, words in (
        (b"", "empty file"),
        (b"hello", "no picture"),
        (whole[:200], "no picture|fewer|truncated"),
        ([b"hello", b"hello", b"hello"], "no picture"),
    ):
        with pytest.raises(BrokenPictureError, match=words):
            VideoFormat(PictureFormat(None, 1), 4).decode(content)
    with pytest.raises(BrokenPictureError, match="4 frames, fewer than 9"):
        VideoFormat(PictureFormat(None, 1), 9).decode(whole)


@pytest.mark.parametrize(("kind", "words"), [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
def test_equal_frames_of_which_a_writer_makes_one_are_several(kind: str, words: dict[str, Any]) -> None:
    one, other, last = frames(0, 3)
    written = [one, other, other, other, last]
    buffer = io.BytesIO()
    written[0].save(buffer, kind, save_all=True, append_images=written[1:], duration=[100, 100, 110, 100, 90], **words)

    def decoded(count: int, stride: int) -> list[bytes]:
        x = VideoFormat(PictureFormat(None, 1), count, stride).decode(buffer.getvalue())
        return [x[0, i].tobytes() for i in range(count)]

    assert decoded(5, 1) == [frame.tobytes() for frame in written]
    assert decoded(2, 2) == [one.tobytes(), other.tobytes()]
    assert decoded(3, 2) == [one.tobytes(), other.tobytes(), last.tobytes()]
    assert frame_count(buffer.getvalue()) == 5
    with pytest.raises(BrokenPictureError, match="5 frames, fewer than 6"):
        decoded(6, 1)


def still(folder: Path) -> None:
    (folder / "clips").mkdir()
    frames(0)[0].save(folder / "clips" / "a.png")


def mixed(folder: Path) -> None:
    gif_folder(folder).rename(folder / "clips")
    write_gif(folder / "clips" / "a" / "short.gif", 7, 2)
    (folder / "clips" / "a" / "zero.gif").touch()


def noise(folder: Path) -> None:
    wav_folder(folder).rename(folder / "clips")
    (folder / "clips" / "low" / "x.wav").write_bytes(b"RIFF")


@pytest.mark.parametrize(
    ("make", "words", "line"),
    [
        (still, ["video"], "holds pictures that do not move, as a.png"),
        (
            mixed,
            ["video"],
            "2 of the 14 videos in clips cannot be read: a/short.gif (2 frames, fewer than 4)",
        ),
        (noise, ["video"], "clips holds no pictures"),
        (mixed, ["audio"], "clips holds no sounds"),
        (noise, ["audio"], "1 of the 13 sounds in clips cannot be read: low/x.wav"),
        (noise, ["audio", "dataset.length=0"], "dataset.length=0 must be a whole number from 16"),
        (noise, ["audio", "dataset.channels=3"], "dataset.channels=3 must be 1 or 2"),
        (noise, ["audio", "dataset.crop=middle"], "dataset.crop=middle is unknown: must be start or center"),
        (mixed, ["video", "dataset.frames=1"], "dataset.frames=1 must be a whole number, 2 or more"),
        (mixed, ["video", "dataset.stride=0"], "dataset.stride=0 must be a whole number, 1 or more"),
        (mixed, ["video", "dataset.path=gone"], "there is no file or folder gone"),
        (mixed, ["audio", "dataset.path=''"], "dataset.path= must name a folder"),
        (noise, ["audio", "dataset.path=clips/low/0.wav"], "is no folder and no .zip (to read a single sound"),
        (noise, ["audio", "dataset.test_share=1"], "dataset.test_share=1 must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    make: Callable[[Path], None], words: list[str], line: str, tmp_path: Path
) -> None:
    make(tmp_path)
    kind, *more = words
    frames_wanted = ["dataset.frames=4"] if kind == "video" else []
    done = train(tmp_path, f"dataset={kind}", "dataset.path=clips", *frames_wanted, *more)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/fits/*"))


@pytest.mark.slow
def test_a_run_on_own_sounds_is_found_again_and_knows_when_they_change(tmp_path: Path) -> None:
    wav_folder(tmp_path)
    words = [
        "dataset=audio",
        "dataset.path=wavs",
        "dataset.sample_rate=8000",
        "dataset.length=1024",
        "backbone.patch=8",
    ]
    words += ["dataset.test_share=0.4"]
    assert train(tmp_path, *words).returncode == 0
    (first,) = tmp_path.glob("runs/fits/*")
    (tmp_path / "wavs").rename(tmp_path / "moved")
    again = [word.replace("=wavs", "=moved") for word in words]
    assert train(tmp_path, *again).returncode == 0
    assert list(tmp_path.glob("runs/fits/*")) == [first]
    write_wav(tmp_path / "moved" / "low" / "0.wav", 500)
    assert train(tmp_path, *again).returncode == 0
    assert len(list(tmp_path.glob("runs/fits/*"))) == 2


@pytest.mark.slow
def test_a_run_on_own_videos_leaves_out_what_is_broken(tmp_path: Path) -> None:
    mixed(tmp_path)
    words = ["dataset=video", "dataset.path=clips", "dataset.size=8", "dataset.frames=4", "dataset.broken=skip"]
    words += ["dataset.test_share=0.4", "backbone.patch=2", "backbone.multipliers=[1]"]
    done = train(tmp_path, *words, "evaluation.extractor.inner.size=32")
    assert done.returncode == 0, done.stderr
    assert "fd_frames_efficientnet_lite0_32" in done.stdout


def test_the_command_tells_what_is_in_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noise(tmp_path)
    assert main(["data", "clips"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "sounds        13",
        "formats       WAV 12",
        "seconds       0.256 to 0.256 s (median 0.256)",
        "recorded      12 at 8000 Hz with 1 channel",
        "classes       2: high 6 and low 7",
        "broken        1",
        "dataset=audio dataset.path=clips dataset.sample_rate=8000 dataset.broken=skip backbone.patch=16",
    ):
        assert line in printed
    (tmp_path / "other").mkdir()
    mixed(tmp_path / "other")
    assert main(["data", "other/clips", "--kind", "video", "--size", "8"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "videos        14",
        "frames        2 to 5 (median 5)",
        "sizes         8x8 13",
        "  a/zero.gif: empty file",
    ):
        assert line in printed
    # Strips of five frames with lines between, and spectrograms, a white gap beside each.
    assert main(["data", "other/clips", "--kind", "video", "--size", "8", "--sheet", "a.png"]) == 0
    assert main(["data", "clips", "--sheet", "b.png"]) == 0
    capsys.readouterr()
    for file, count, columns, (height, width) in (("a.png", 13, 12, (8, 17)), ("b.png", 12, 12, (64, 129))):
        with Image.open(file) as sheet:
            rows = -(-count // columns)
            assert sheet.size == (columns * (width + 2), rows * (height + 2))
            pixels = np.asarray(sheet)
        assert (pixels[:height, :width] != 255).any()
        assert (pixels[:, width : width + 2] == 255).all()
