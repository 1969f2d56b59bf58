"""A folder of small photographs, to train on: squares cut at random places out of a few large ones.

    apt-get install mate-backgrounds                                      # twelve photographs, GPL-2+
    python benchmarks/photograph_crops.py /usr/share/backgrounds/mate/nature photographs
    python train.py dataset=images dataset.path=photographs dataset.size=32

The squares of a photograph lie in a folder of its name, which is their class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--each", type=int, default=200, help="squares cut out of each")
    parser.add_argument("--side", type=int, default=96, help="of a square, in pixels")
    parser.add_argument(
        "--height", type=int, default=360, help="pixels of the shorter side of a photograph before that"
    )
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    for path in sorted(options.photographs.glob("*.jpg")):
        with Image.open(path) as whole:
            scale = options.height / min(whole.size)
            small = whole.convert("RGB").resize([round(side * scale) for side in whole.size], Image.Resampling.BICUBIC)
        (options.out / path.stem).mkdir(parents=True, exist_ok=True)
        for number in range(options.each):
            left, top = (int(draw.integers(0, side - options.side + 1)) for side in small.size)
            square = small.crop((left, top, left + options.side, top + options.side))
            square.save(options.out / path.stem / f"{number:04d}.png")


if __name__ == "__main__":
    main()
