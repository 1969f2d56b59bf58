"""Parquet and arrow tables as Hugging Face has them: columns image, label and text; pyarrow reads them."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from diffsweep.data.collections.members import Members
from diffsweep.data.collections.names import CAPTIONS, LABELS, SPLITS, json_object, one_line, version
from diffsweep.settings import Split


def of_table(path: Path, name: str | None = None) -> Members:
    """The pictures of a table, named `name` and row. Raises ValueError for what is no table of pictures."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise ValueError(f"reading {path} needs pyarrow: pip install 'diffsweep[parquet]'") from error
    try:
        if path.suffix.lower() == ".parquet":
            file = parquet.ParquetFile(path, memory_map=True)
            schema = file.schema_arrow
            image, label, caption = _columns(path, schema.names)
            described = file.read([column for column in (label, caption) if column is not None])
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            read = _group_reader(path, image, groups)
            count = sum(groups)
        else:
            with pyarrow.memory_map(str(path)) as source:
                try:
                    described = ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    described = ipc.open_file(source).read_all()
            schema = described.schema
            image, label, caption = _columns(path, schema.names)
            read, count = partial(_cell, described[image]), described.num_rows
        labels = described[label].to_pylist() if label is not None else [None] * count
        captions = described[caption].to_pylist() if caption is not None else [None] * count
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no table that can be read ({one_line(error)})") from error
    names = _class_names(schema.metadata).get(label or "", ())
    prefix = name or path.name
    split: Split | None = next((SPLITS[word] for word in re.split(r"[-_./]", prefix.lower()) if word in SPLITS), None)
    splits: list[Split | None] = [split] * count
    shown = [names[known] if isinstance(known, int) and 0 <= known < len(names) else known for known in labels]
    return Members(
        [f"{prefix}/{row}" for row in range(count)],
        read,
        [None if label is None else sys.intern(str(label)) for label in shown],
        [None if text is None else str(text) for text in captions],
        splits,
    )


def _columns(path: Path, names: Sequence[str]) -> tuple[str, str | None, str | None]:
    """The columns of images, labels and captions."""
    columns = {column.lower(): column for column in names}
    image = next((columns[key] for key in ("image", "img", "jpg", "png") if key in columns), None)
    if image is None:
        raise ValueError(f"{path} has no column image, but {', '.join(names) or 'none'}")
    label, caption = (next((columns[key] for key in keys if key in columns), None) for keys in (LABELS, CAPTIONS))
    return image, label, caption


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes by column, as Hugging Face's `ClassLabel` keeps them in a table's schema."""
    features = json_object((metadata or {}).get(b"huggingface", b"").decode(errors="replace"))
    columns = (features.get("info") or {}).get("features") or {}
    return {name: about["names"] for name, about in columns.items() if isinstance(about, dict) and "names" in about}


def _cell(column: Any, row: int) -> bytes:
    """The bytes of the picture in a row of a column."""
    value = column[row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError("a row without the bytes of a picture")
    return content


def _group_reader(path: Path, column: str, groups: Sequence[int]) -> Callable[[int], bytes]:
    """Reads the picture in a row of a parquet file, of which only a few groups of rows are in memory."""
    ends = list(accumulate(groups))

    def read(row: int) -> bytes:
        import pyarrow

        group = bisect_right(ends, row)
        try:
            return _cell(_row_group(str(path), *version(path), column, group), row - (ends[group] - groups[group]))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(one_line(error)) from error

    return read


@lru_cache(maxsize=8)
def _row_group(path: str, size: int, modified: int, column: str, group: int) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path, memory_map=True).read_row_group(group, [column], use_threads=False)[column]
