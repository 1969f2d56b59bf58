"""Parquet and arrow tables as Hugging Face has them: columns image, label and text; pyarrow reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

from diffsweep.data.collections.picture import CAPTIONS, LABELS, SPLITS, Picture, Split, json_object, one_line


def of_table(path: Path, name: str | None = None) -> list[Picture]:
    """The pictures of a table, named `name` and row. Raises ValueError for what is no table of pictures."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise ValueError(f"reading {path} needs pyarrow: pip install 'diffsweep[parquet]'") from error
    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path, memory_map=True)
        else:
            with pyarrow.memory_map(str(path)) as source:
                try:
                    table = ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    table = ipc.open_file(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no table that can be read ({one_line(error)})") from error
    columns = {column.lower(): column for column in table.column_names}
    image = next((columns[key] for key in ("image", "img", "jpg", "png") if key in columns), None)
    if image is None:
        raise ValueError(f"{path} has no column image, but {', '.join(table.column_names) or 'none'}")
    names = _class_names(table.schema.metadata)
    label = next((columns[key] for key in LABELS if key in columns), None)
    caption = next((columns[key] for key in CAPTIONS if key in columns), None)
    prefix = name or path.name
    split: Split | None = next((SPLITS[word] for word in re.split(r"[-_./]", prefix.lower()) if word in SPLITS), None)
    found = []
    for row in range(table.num_rows):
        known = table[label][row].as_py() if label is not None else None
        text = table[caption][row].as_py() if caption is not None else None
        if isinstance(known, int) and label is not None and label in names and 0 <= known < len(names[label]):
            known = names[label][known]
        found.append(
            Picture(
                f"{prefix}/{row}",
                _cell_reader(table[image], row),
                None if known is None else str(known),
                None if text is None else str(text),
                split,
            )
        )
    return found


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes by column, as Hugging Face's `ClassLabel` keeps them in a table's schema."""
    features = json_object((metadata or {}).get(b"huggingface", b"").decode(errors="replace"))
    columns = (features.get("info") or {}).get("features") or {}
    return {name: about["names"] for name, about in columns.items() if isinstance(about, dict) and "names" in about}


def _cell_reader(column: Any, row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        value = column[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError("a row without the bytes of a picture")
        return content

    return read
