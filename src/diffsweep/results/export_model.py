"""A run's model written for other programs: folders of diffusers with a model card."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.hub import repository, send
from diffsweep.mistakes import one_of
from diffsweep.project import added_conf, main_conf
from diffsweep.results.resample import SampleRequest, sample_request
from diffsweep.sweep.plan.option_files import option
from diffsweep.sweep.store.record import Cell

if TYPE_CHECKING:
    from diffsweep.diffusion import Denoiser
    from diffsweep.interop.diffusers_export import StockModel
    from diffsweep.results.lookup import Selector

FORMATS = ("diffusers",)

_OF_A_MODEL = ("schedule", "diffuser", "condition", "backbone", "sampler", "guidance")


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: Where.
        classes: Names of the classes that load it.
        stock: Whether these are diffusers' own.
        same: Whether they sample as the run did.
        files: Of the folder, relative to it.
    """

    folder: Path
    classes: Sequence[str]
    stock: bool
    same: bool
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
    (`diffsweep.results.diffusers_pipeline`), which needs no remote code.

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
    from diffsweep.runs.trust import trusting

    with trusting(everything=trust):
        request = sample_request(run, runs=runs, device="cpu")
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        part.mkdir(parents=True)
        try:
            found = _write(request, part, licence, data_licence, folder.name)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    stock, same = found is not None, found is None or found.same
    classes = (
        ["diffsweep.results.diffusers_pipeline.DenoiserPipeline"]
        if found is None
        else [f"diffusers.{type(found.network).__name__}", f"diffusers.{found.scheduler[0]}"]
    )
    return Exported(folder, classes, stock, same, files)


def _write(
    request: SampleRequest, part: Path, licence: str | None, data_licence: str | None, name: str
) -> StockModel | None:
    from diffsweep.interop.diffusers_export import stock_model
    from diffsweep.interop.diffusers_network import require
    from diffsweep.runs.instantiate import make
    from diffsweep.runs.load_fit import finished

    diffusers = require()
    denoiser = finished(request.fit.folder.parent.parent, request.fit.signature)
    cfg = request.cfg
    others = [name for name in cfg.get("condition") or {} if name != "label"]
    if others:
        raise ValueError(f"its model is told {others[0]}, which no pipeline passes on: only labels are")
    if "weak" in cfg.guidance or "classifier" in cfg.guidance:
        raise ValueError(
            "its guidance asks a second model, which no pipeline holds: export another cell of it, or its training "
            f"{request.fit.signature}"
        )
    sampler, guidance = make(cfg, "sampler"), make(cfg, "guidance")
    stock = stock_model(denoiser, sampler, guidance)
    if stock is not None:
        stock.network.save_pretrained(part / stock.part)
        kind, settings = stock.scheduler
        getattr(diffusers, kind)(**settings).save_pretrained(part / "scheduler")
        index = {
            "_class_name": "DiTPipeline" if type(stock.network).__name__.startswith("DiT") else "DDIMPipeline",
            "_diffusers_version": diffusers.__version__,
            stock.part: ["diffusers", type(stock.network).__name__],
            "scheduler": ["diffusers", kind],
        }
        (part / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    else:
        _write_own(request, denoiser, part)
    (part / "README.md").write_text(_card(request, stock, licence, data_licence, name), encoding="utf-8")
    return stock


def _write_own(request: SampleRequest, denoiser: Denoiser, part: Path) -> None:
    from omegaconf import OmegaConf

    from diffsweep.results.diffusers_pipeline import DenoiserModel, DenoiserPipeline

    cfg = request.cfg
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    dataset = plain["dataset"]
    model = DenoiserModel(
        run={key: plain[key] for key in _OF_A_MODEL if key in plain},
        shape=list(dataset["shape"]),
        classes=int(dataset.get("classes") or 0),
        sigma_data=float(dataset.get("sigma_data", 0.5)),
    )
    model.denoiser.load_state_dict(denoiser.state_dict())
    DenoiserPipeline(denoiser=model.eval()).save_pretrained(part)


def _card(
    request: SampleRequest, stock: StockModel | None, licence: str | None, data_licence: str | None, name: str
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
        "- unconditional-image-generation",
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
    lines += ["", "## Use", "", "```python"]
    if stock is None:
        lines += [
            "from diffsweep.results.diffusers_pipeline import DenoiserPipeline",
            "",
            f'pictures = DenoiserPipeline.from_pretrained("{name}")(batch_size=4).images',
        ]
    else:
        lines += [f"from diffusers import {type(stock.network).__name__}, {stock.scheduler[0]}", ""]
        lines += [f'network = {type(stock.network).__name__}.from_pretrained("{name}", subfolder="{stock.part}")']
        lines += [f'scheduler = {stock.scheduler[0]}.from_pretrained("{name}", subfolder="scheduler")']
        lines += [f"scheduler.set_timesteps({stock.steps})"]
    lines += ["```", ""]
    if stock is not None:
        lines.append(
            "With this scheduler and as many steps samples are those that were measured."
            if stock.same
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
