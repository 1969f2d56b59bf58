"""`diffsweep data`."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.commands.values import whole
from diffsweep.messages import print_lines
from diffsweep.project import train_command
from diffsweep.report.format import count, duration, some, things

if TYPE_CHECKING:
    from diffsweep.data.survey import Survey

_CLASSES = 12
_BROKEN = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("path", metavar="PATH", type=Path, help="folder, zip, tar, parquet, arrow, npz or npy file")
    parser.add_argument("--size", metavar="N", type=whole, default=64, help="pixels a side that all become (64)")
    parser.add_argument(
        "--kind",
        choices=["images", "video", "audio"],
        help="as what it is looked at (default: audio for sounds, else images)",
    )
    parser.add_argument("--all", action="store_true", help="read every picture, not 2,000 of them")
    parser.add_argument("--sheet", metavar="FILE", type=Path, help="write a contact sheet to this PNG")


def run(options: argparse.Namespace) -> int:
    """What is in a collection of pictures, and what training on it will cost; writes nothing but --sheet.

    How many pictures there are, of which sizes, file formats and classes, with how many captions; what is broken; mean,
    standard deviation and sigma_data at --size; and the command that trains on it.
    """
    from diffsweep.data.survey import kind_of, survey

    if options.size < 1:
        raise ValueError(f"--size {options.size} must be 1 or more")
    kind = options.kind or kind_of(options.path)
    found = survey(options.path, kind, options.size, most=None if options.all else 2000)
    for name, value in _rows(found):
        print_lines(f"{name:<14}{value}")
    for name, reason in found.broken[:_BROKEN]:
        print_lines(f"  {name}: {reason}")
    if len(found.broken) > _BROKEN:
        print_lines(f"  and {count(len(found.broken) - _BROKEN)} more")
    if options.sheet is not None:
        from diffsweep.files import atomic

        with atomic(options.sheet) as temporary:
            found.contact_sheet().save(temporary)
        print_lines(f"{'contact sheet':<14}{options.sheet}")
    words = [f"dataset={kind}", f"dataset.path={options.path}"]
    if kind == "audio":
        words.append(f"dataset.sample_rate={min(found.sizes)[0]}")
    else:
        words.append(f"dataset.size={options.size}")
    if kind == "video":
        words.append(f"dataset.frames={max(2, int(min(found.lengths)))}")
    words += ["dataset.broken=skip"] if found.broken else []
    words += {"images": [], "video": ["backbone.patch=2"], "audio": ["backbone.patch=16"]}[kind]
    print_lines(f"\nto train on it:\n  {train_command(*words)}")
    return 0


def _rows(found: Survey) -> list[tuple[str, str]]:
    read = "" if found.looked_at == found.count else f", {count(found.looked_at)} of them read (--all reads all)"
    rows = [(found.noun, f"{count(found.count)}{read}")]
    splits = ", ".join(f"{name} {count(n)}" for name, n in sorted(found.splits.items()))
    rows.append(("given splits", splits or "none: a tenth is held out (dataset.test_share)"))
    rows.append(("formats", ", ".join(f"{kind} {count(n)}" for kind, n in found.formats.most_common())))
    if found.formats.get("JPEG") and len(found.formats) > 1 and found.pixels is not None:
        rows.append(("careful", "JPEG beside other formats: its artefacts are part of the data"))
    if found.lengths:
        title, unit = ("seconds", " s") if found.noun == "sounds" else ("frames", "")
        least, middle, most = min(found.lengths), statistics.median_low(found.lengths), max(found.lengths)
        rows.append((title, f"{least:.4g} to {most:.4g}{unit} (median {middle:.4g})"))
        sizes = Counter(found.sizes).most_common()
        if found.noun == "sounds":
            recorded = [f"{count(n)} at {rate} Hz with {things(channels, 'channel')}" for (rate, channels), n in sizes]
            rows.append(("recorded", some(recorded, 4)))
        else:
            rows.append(("sizes", some([f"{width}x{height} {count(n)}" for (width, height), n in sizes], 4)))
    else:
        for title, side in zip(("width", "height"), zip(*found.sizes, strict=True), strict=True):
            rows.append((title, f"{min(side)} to {max(side)} (median {statistics.median_low(side)})"))
        smaller = sum(min(one) < found.size for one in found.sizes)
        if smaller:
            rows.append(("careful", f"{things(smaller, 'picture')} of less than {found.size} pixels are enlarged"))
    names = [f"{name} {count(n)}" for name, n in found.classes.items()]
    rows.append(("classes", f"{len(names)}: {some(names, _CLASSES)}" if names else "none"))
    pixels = found.pixels
    if pixels is not None:
        rows.append(("captions", count(found.captions) if found.captions else "none"))
        rows.append(("colours", "grey" if pixels.grey else "colours"))
        rows.append(("doubles", count(pixels.doubles) if pixels.doubles else "none"))
    rows.append(("broken", count(len(found.broken)) if found.broken else "none"))
    if pixels is not None:
        values = f"mean {pixels.mean:.3f}, standard deviation {pixels.std:.3f}, sigma_data {pixels.sigma_data:.3f}"
        rows.append(("values", values))
        megabytes = (found.count - len(found.broken)) * (1 if pixels.grey else 3) * found.size**2 / 1e6
        seconds = duration(found.seconds_each * found.count)
        rows.append(("packed", f"about {megabytes:,.1f} MB in the cache, made once in about {seconds}"))
    return rows
