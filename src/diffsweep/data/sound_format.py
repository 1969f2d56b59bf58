"""From a sound's file to samples: int16 (channels, time), whatever the file's kind, rate and depth."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diffsweep.data.decode import BrokenPictureError

if TYPE_CHECKING:
    import numpy as np


class BrokenSoundError(BrokenPictureError):
    """A sound that cannot be read; the message says why, without its name."""


@dataclass(frozen=True)
class SoundFormat:
    """What every sound of a dataset becomes.

    Files are read by libsndfile. Another rate is brought to `sample_rate` by a polyphase filter that keeps out
    what would alias (scipy's resample_poly). Several channels become one by their mean; one becomes two
    alike; of more than two the first two are taken. What is shorter than `length` is followed by silence.

    Attributes:
        sample_rate: samples a second.
        channels: 1 or 2.
        length: samples of each sound.
        crop: "start" or "center": what is taken of a longer sound.
        normalize: "peak" scales what is taken so that its largest value is full scale, "none" leaves it.
    """

    sample_rate: int
    channels: Literal[1, 2]
    length: int
    crop: Literal["start", "center"] = "start"
    normalize: Literal["peak", "none"] = "peak"

    def decode(self, content: bytes) -> np.ndarray:
        """The sound, int16 (channels, length).

        Raises:
            BrokenSoundError: for what is no sound, or is cut short.
            ValueError: if the library for it is not installed.
        """
        import numpy as np

        if not content:
            raise BrokenSoundError("empty file")
        # Libsndfile takes a WAV file for as long as what is left of it.
        if content[:4] == b"RIFF" and len(content) < int.from_bytes(content[4:8], "little") < 2**32 - 1:
            raise BrokenSoundError("cut short")
        x = self._with_channels(self._excerpt(content))
        if not np.isfinite(x).all():
            raise BrokenSoundError("values that are not finite")
        x = np.pad(x, ((0, 0), (0, max(0, self.length - x.shape[1]))))[:, : self.length]
        peak = float(np.abs(x).max(initial=0))
        if self.normalize == "peak" and peak > 0:
            # What is louder than full scale is cut off: 1 would be one step above it.
            x = x * (32767 / 32768 / peak)
        return np.rint(x * 32768).clip(-32768, 32767).astype(np.int16)

    def _excerpt(self, content: bytes) -> np.ndarray:
        """As much of the sound as is taken, at the wanted rate: float64 (channels, time)."""
        import numpy as np
        from scipy.signal import resample_poly

        library = soundfile()
        try:
            with library.SoundFile(io.BytesIO(content)) as file:
                rate, total = file.samplerate, file.frames
                if rate < 1 or total < 1:
                    raise BrokenSoundError("no samples")
                wanted = math.ceil(self.length * rate / self.sample_rate)
                start = max(0, (total - wanted) // 2) if self.crop == "center" else 0
                file.seek(start)
                x = file.read(min(wanted, total - start), dtype="float64", always_2d=True).T
                if x.shape[1] < min(wanted, total - start):
                    raise BrokenSoundError("cut short")
        except library.LibsndfileError as error:
            raise BrokenSoundError(str(error).rpartition(": ")[2].strip().rstrip(".") or "no sound") from error
        common = math.gcd(rate, self.sample_rate)
        up, down = self.sample_rate // common, rate // common
        return x if up == down else np.asarray(resample_poly(x, up, down, axis=1))

    def _with_channels(self, x: np.ndarray) -> np.ndarray:
        import numpy as np

        if self.channels == 1:
            return x.mean(axis=0, keepdims=True)
        return np.repeat(x, 2, axis=0) if len(x) == 1 else x[:2]


def sound_length(content: bytes) -> tuple[int, int, int, str]:
    """Samples, samples a second, channels and file format of a sound, without decoding it. Errors as `decode`."""
    library = soundfile()
    try:
        with library.SoundFile(io.BytesIO(content)) as file:
            return file.frames, file.samplerate, file.channels, file.format
    except library.LibsndfileError as error:
        raise BrokenSoundError(str(error).rpartition(": ")[2].strip().rstrip(".") or "no sound") from error


def soundfile() -> Any:
    """The library that reads sounds. Raises ValueError if it is not installed."""
    try:
        import soundfile as library
    except (ImportError, OSError) as error:
        raise ValueError("reading sounds needs soundfile: pip install 'diffsweep[audio]'") from error
    return library
