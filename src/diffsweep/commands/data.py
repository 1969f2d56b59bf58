"""`diffsweep data`."""

from __future__ import annotations

import argparse
import statistics
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
    from diffsweep.data.clip_survey import kind_of
    from diffsweep.data.survey import survey

    if options.size < 1:
        raise ValueError(f"--size {options.size} must be 1 or more")
    kind = options.kind or kind_of(options.path)
    if kind != "images":
        return _clips(options, kind)
    found = survey(options.path, options.size, most=None if options.all else 2000)
    for name, value in _rows(found, options.size):
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
    skip = ["dataset.broken=skip"] if found.broken else []
    words = ["dataset=images", f"dataset.path={options.path}", f"dataset.size={options.size}", *skip]
    print_lines(f"\nto train on it:\n  {train_command(*words)}")
    return 0


def _clips(options: argparse.Namespace, kind: str) -> int:
    """The same of videos or sounds."""
    from diffsweep.data.clip_survey import survey_sounds, survey_videos

    if options.sheet is not None:
        raise ValueError(f"--sheet {options.sheet} is for images: there is no contact sheet of {kind}")
    most = None if options.all else 2000
    found = (survey_sounds if kind == "audio" else survey_videos)(options.path, most)
    noun, unit = ("sounds", " s") if kind == "audio" else ("videos", "")
    looked_at = len(found.lengths) + len(found.broken)
    read = "" if looked_at == found.count else f", {count(looked_at)} of them read (--all reads all)"
    rows = [(noun, f"{count(found.count)}{read}")]
    splits = ", ".join(f"{name} {count(n)}" for name, n in sorted(found.splits.items()))
    rows.append(("given splits", splits or "none: a tenth is held out (dataset.test_share)"))
    rows.append(("formats", ", ".join(f"{name} {count(n)}" for name, n in found.formats.most_common()) or "none"))
    if found.lengths:
        least, middle, most_of = min(found.lengths), statistics.median_low(found.lengths), max(found.lengths)
        title = "seconds" if kind == "audio" else "frames"
        rows.append((title, f"{least:.4g} to {most_of:.4g}{unit} (median {middle:.4g})"))
        written = "{} samples a second, {} channels {}" if kind == "audio" else "{}x{} {}"
        sizes = [written.format(*size, count(n)) for size, n in found.sizes.most_common()]
        rows.append(("recorded" if kind == "audio" else "sizes", some(sizes, 4)))
    names = [f"{name} {count(n)}" for name, n in found.classes.items()]
    rows.append(("classes", f"{len(names)}: {some(names, _CLASSES)}" if names else "none"))
    rows.append(("broken", count(len(found.broken)) if found.broken else "none"))
    for name, value in rows:
        print_lines(f"{name:<14}{value}")
    for name, reason in found.broken[:_BROKEN]:
        print_lines(f"  {name}: {reason}")
    if len(found.broken) > _BROKEN:
        print_lines(f"  and {count(len(found.broken) - _BROKEN)} more")
    words = [f"dataset.path={options.path}"]
    if kind == "audio" and found.sizes:
        words.append(f"dataset.sample_rate={min(found.sizes)[0]}")
    if kind == "video" and found.lengths:
        words += [f"dataset.size={options.size}", f"dataset.frames={max(2, int(min(found.lengths)))}"]
    words += ["dataset.broken=skip"] if found.broken else []
    words.append("backbone.patch=16" if kind == "audio" else "backbone.patch=2")
    print_lines(f"\nto train on it:\n  {train_command(f'dataset={kind}', *words)}")
    return 0


def _rows(found: Survey, size: int) -> list[tuple[str, str]]:
    read = "" if found.looked_at == found.pictures else f", {count(found.looked_at)} of them read (--all reads all)"
    rows = [("pictures", f"{count(found.pictures)}{read}")]
    if found.splits:
        rows.append(("given splits", ", ".join(f"{name} {count(n)}" for name, n in sorted(found.splits.items()))))
    else:
        rows.append(("given splits", "none: a tenth is held out (dataset.test_share)"))
    rows.append(("formats", ", ".join(f"{kind} {count(n)}" for kind, n in found.formats.most_common())))
    if found.formats.get("JPEG") and len(found.formats) > 1:
        rows.append(("careful", "JPEG beside other formats: its artefacts are part of the data"))
    widths, heights = zip(*found.sizes, strict=True)
    spans = [f"{min(side)} to {max(side)} (median {statistics.median_low(side)})" for side in (widths, heights)]
    rows.append(("width", spans[0]))
    rows.append(("height", spans[1]))
    smaller = sum(min(one) < size for one in found.sizes)
    if smaller:
        rows.append(("careful", f"{things(smaller, 'picture')} of less than {size} pixels are enlarged"))
    if found.classes:
        names = [f"{name} {count(n)}" for name, n in found.classes.items()]
        rows.append(("classes", f"{len(names)}: {some(names, _CLASSES)}"))
    else:
        rows.append(("classes", "none"))
    rows.append(("captions", count(found.captions) if found.captions else "none"))
    rows.append(("colours", "grey" if found.grey else "colours"))
    rows.append(("doubles", count(found.doubles) if found.doubles else "none"))
    rows.append(("broken", count(len(found.broken)) if found.broken else "none"))
    rows.append(
        ("values", f"mean {found.mean:.3f}, standard deviation {found.std:.3f}, sigma_data {found.sigma_data:.3f}")
    )
    megabytes = found.packed_bytes(size) / 1e6
    seconds = found.seconds_each * found.pictures
    rows.append(("packed", f"about {megabytes:,.1f} MB in the cache, made once in about {duration(seconds)}"))
    return rows
