"""A run's model written for other programs: folders of diffusers with a model card."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.hub import repository, send
from diffsweep.mistakes import one_of
from diffsweep.project import added_conf, main_conf
from diffsweep.results.resample import SampleRequest, sample_request
from diffsweep.sweep.plan.option_files import option
from diffsweep.sweep.store.record import Cell

if TYPE_CHECKING:
    from diffsweep.results.exported_model import ExportedModel
    from diffsweep.results.lookup import Selector

FORMATS = ("diffusers",)


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: Where.
        classes: Names of the classes that load it.
        stock: Whether these are diffusers' own.
        same: Whether they sample as the run did.
        text: Whether they are asked by texts.
        files: Of the folder, relative to it.
    """

    folder: Path
    classes: Sequence[str]
    stock: bool
    same: bool
    text: bool
    files: Sequence[str]


def export_model(
    run: Selector,
    folder: str | Path,
    *,
    format: str = "diffusers",
    runs: str | Path = "runs",
    licence: str | None = None,
    data_licence: str | None = None,
    trust: bool = False,
) -> Exported:
    """Write the model of a finished run, with a card that says where it comes from.

    A network of diffusers becomes a pipeline of its own classes, any other one of ours
    (`diffsweep.results.diffusers_pipeline`), which needs no remote code. An autoencoder goes with it, and so do the
    language models of a pipeline that was imported.

    Args:
        run: a cell or training, as in `find`.
        folder: must not be there, or be empty; or `hf://OWNER/NAME`, a repository of Hugging Face's hub that is made
            if it is not there.
        format: diffusers.
        runs: folder of all runs.
        licence: of the weights, for the card.
        data_licence: of the data, for the card, where it is not known.
        trust: as of `sample`.

    Raises:
        ValueError: for what is not there, or cannot be written in that format.
    """
    one_of("format", format, FORMATS)
    name = repository(folder)
    if name is not None:
        with tempfile.TemporaryDirectory() as place:
            written = export_model(
                run,
                Path(place) / name.rpartition("/")[2],
                format=format,
                runs=runs,
                licence=licence,
                data_licence=data_licence,
                trust=trust,
            )
            send(written.folder, name)
        return dataclasses.replace(written, folder=Path(folder))
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: choose another folder, or remove it")
    from diffsweep.interop.diffusers_network import require
    from diffsweep.runs.trust import trusting

    require()
    with trusting(everything=trust):
        request = sample_request(run, runs=runs, device="cpu")
        from diffsweep.results.exported_model import ExportedModel

        model = ExportedModel.of(request)
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        part.mkdir(parents=True)
        try:
            model.write(part)
            card = _card(request, model, licence, data_licence, folder.name)
            (part / "README.md").write_text(card, encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    same = model.stock is None or model.stock.same
    return Exported(folder, model.classes, model.stock is not None, same, model.languages is not None, files)


def _card(
    request: SampleRequest, model: ExportedModel, licence: str | None, data_licence: str | None, name: str
) -> str:
    """README.md: what the Hub reads in its head, then where the model comes from and how it is sampled."""
    done = request.fit.result() or {}
    result = request.record.result() if isinstance(request.record, Cell) else None
    data = request.choices.get("dataset") or str(request.cfg.dataset._target_).rpartition(".")[2].lower()
    of_data = data_licence or _licence_of(data) or "not known: ask whoever gave you the data"
    head = [
        "---",
        "library_name: diffusers",
        *([f"license: {licence}"] if licence else []),
        "tags:",
        "- diffsweep",
        "- unconditional-image-generation" if model.languages is None else "- text-to-image",
        "---",
    ]
    origin = done.get("imported_from")
    trained = (
        f"Imported from `{origin}` ({done.get('format')}); nothing was trained here."
        if origin
        else f"Trained for {done.get('steps')} steps from seed {result.seed if result is not None else 'unknown'}."
    )
    parameters, commit = done.get("parameters"), str(done.get("git_commit") or "unknown")
    rows = [
        ("parameters", f"{parameters:,}" if isinstance(parameters, int) else "unknown"),
        ("training", request.fit.signature),
        ("cell", request.record.signature if isinstance(request.record, Cell) else "none"),
        *request.choices.items(),
        ("network calls", str(request.cfg.sampler.nfe)),
        ("data", data),
        ("licence of the data", of_data),
        ("licence of the weights", licence or "not said"),
        ("commit of diffsweep", commit + (" and changes" if done.get("git_dirty") else "")),
        *((package, str(done.get(f"version_{package}"))) for package in ("diffsweep", "torch")),
    ]
    lines = [*head, f"# {name}", "", trained, "", *_table(("", ""), rows)]
    if result is not None:
        measures = [result.measure(metric) for metric in result.measured]
        measured = [
            (one.name, f"{one.value:.4g}" + (f" +- {one.half:.2g}" if one.half is not None else ""))
            for one in measures
            if one.value is not None
        ]
        lines += ["", f"Measured of {result.samples} samples against {result.reference_samples} of {data}:", ""]
        lines += _table(("metric", "value"), measured)
    lines += ["", "## Use", "", "```python", *model.use(name), "```", ""]
    if model.stock is not None:
        lines.append(
            "With this scheduler and as many steps samples are those that were measured."
            if model.stock.same
            else "What was measured was drawn otherwise (see the table); this scheduler is the nearest of diffusers'."
        )
    return "\n".join(lines) + "\n"


def _licence_of(dataset: str) -> str | None:
    """What the option's file says of the licence of its data."""
    for folder in filter(None, (added_conf(), main_conf())):
        file = folder / "dataset" / f"{dataset}.yaml"
        if file.is_file():
            return option("dataset", file).notes.get("licence")
    return None


def _table(heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = ["| {} | {} |".format(*heads), "|---|---|"]
    return [*lines, *(f"| {key} | {' '.join(value.replace('|', '/').split())} |" for key, value in rows)]
