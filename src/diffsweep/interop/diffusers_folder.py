"""A folder of diffusers: a whole pipeline (model_index.json), or a network (config.json) with a scheduler beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from diffsweep.interop import diffusers_network
from diffsweep.interop.checkpoint import Checkpoint, TextReader, check_weights
from diffsweep.interop.configuration import read_object
from diffsweep.interop.diffusers_scheduler import read_scheduler
from diffsweep.interop.weights import of_folder
from diffsweep.mistakes import spell

INDEX = "model_index.json"
NETWORK = "config.json"
SCHEDULER = "scheduler_config.json"
WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
PARTS = ("unet", "transformer")


def matches(folder: Path) -> bool:
    """Whether a folder looks like one of diffusers."""
    return (folder / INDEX).is_file() or (folder / NETWORK).is_file()


def read(folder: Path) -> Checkpoint:
    """The model in a folder; no code of the folder is run, whatever it names.

    Raises:
        ValueError: in one line, for what is missing, unknown, damaged, or would need a text or code of its own.
    """
    notes: list[str] = []
    if (folder / INDEX).is_file():
        part, notes = _part(folder / INDEX)
        network, scheduler = folder / part, folder / "scheduler"
    else:
        network = folder
        beside = [folder, folder / "scheduler", folder.parent / "scheduler"]
        scheduler = next((one for one in beside if (one / SCHEDULER).is_file()), folder)
    config = read_object(network / NETWORK)
    name = str(config.get("_class_name"))
    try:
        classes = diffusers_network.labels(name, config)
        shapes = diffusers_network.shapes(name, config)
        width, kind = diffusers_network.text_width(name, config), diffusers_network.pipeline_of(name, config)
        patch = diffusers_network.patch_of(name, config)
    except ValueError as error:
        raise ValueError(f"{network / NETWORK}: {error}") from error
    weights = of_folder(network, WEIGHTS)
    check_weights(shapes, weights, name)
    if not (scheduler / SCHEDULER).is_file():
        raise ValueError(
            f"{folder} does not say how the model was trained: {SCHEDULER} is missing (save the scheduler beside the "
            "network, as scheduler.save_pretrained(FOLDER) does)"
        )
    settings = read_object(scheduler / SCHEDULER)
    try:
        process = read_scheduler(settings)
    except ValueError as error:
        raise ValueError(f"{scheduler / SCHEDULER}: {error}") from error
    if config.get("time_embedding_type") == "learned" and "whole" in process.level:
        # A table has rows for whole steps only.
        process = replace(process, level={**process.level, "whole": True})
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    size = sum(_product(shape) for shape in shapes.values())
    channels, outputs = config.get("in_channels"), config.get("out_channels")
    if isinstance(channels, int) and outputs == 2 * channels:
        notes.append("its learned variance is left out")
    text = None if width is None else _text(folder, kind, width)
    told = f", told one of {classes} labels" if classes else ""
    told += f", told a text of {text.length} rows" if text is not None else ""
    return Checkpoint(
        source=folder,
        format="diffusers",
        network={
            "_target_": "diffsweep.interop.diffusers_network.DiffusersNetwork",
            "name": name,
            "config": plain,
            **({"pixels": _pixels(folder)} if text is not None and text.pipeline == _SIZED else {}),
        },
        process=process,
        weights=weights,
        classes=classes,
        notes=(f"{name} of {size:,} parameters{told}", *notes),
        licence=licence(folder / "README.md"),
        text=text,
        patch=patch,
    )


def _part(index: Path) -> tuple[str, list[str]]:
    """The folder of a pipeline's network, and what should be known of its other parts."""
    content = read_object(index)
    parts: dict[str, tuple[str, str]] = {}
    for name, value in content.items():
        if isinstance(value, list) and len(value) == 2 and not name.startswith("_") and any(value):
            parts[name] = (str(value[0]), str(value[1]))
    found = [name for name in PARTS if name in parts]
    if len(found) != 1:
        there = ", ".join(sorted(parts)[:8]) or "nothing"
        raise ValueError(f"{index} must name one network, as unet or transformer, and names {there}")
    library, name = parts[found[0]]
    if library != "diffusers":
        raise ValueError(
            f"{index}: {found[0]} is {spell(name)} of {spell(library)}, which is code of the folder's own: it is "
            "not run (write its weights into a class of diffusers, or import it as a module)"
        )
    notes = []
    if any(name in parts for name in ("vae", "vqvae", "movq", "vqmodel")):
        notes.append("careful: it works in the latent space of the folder's autoencoder, so its data are latents")
    return found[0], notes


# Tokens of T5, by the kind of pipeline.
_T5_TOKENS = {"stable_diffusion_3": 256, "flux": 512}
# Kinds of pipelines whose networks are told a text as a whole too: beside the size of images, beside a third text, and
# by itself, all tokens being those of the second language model.
_SIZED, _JOINT, _APART = "stable_diffusion_xl", "stable_diffusion_3", "flux"


def _text(folder: Path, kind: str, width: int) -> TextReader:
    """The language models of a pipeline.

    Args:
        folder: Of the pipeline.
        kind: Of the pipeline, as of condition.text.pipeline.
        width: Numbers of each row that the network is told.

    Raises:
        ValueError: if one is missing, or gives tokens of another width.
    """
    joint, alone = kind == _JOINT, kind not in (_JOINT, _SIZED, _APART)
    parts = ["text_encoder"] if alone else ["text_encoder", "text_encoder_2"]
    for part in parts:
        tokenizer = part.replace("text_encoder", "tokenizer")
        if not (folder / part / NETWORK).is_file() or not (folder / tokenizer).is_dir():
            raise ValueError(
                f"{folder} has no {part} and {tokenizer}, and its network is told a text: name the folder of the whole "
                "pipeline"
            )
    configs = [read_object(folder / part / NETWORK) for part in parts]
    read = configs[1:] if kind == _APART else configs
    own = sum(size for config in read if isinstance(size := config.get("hidden_size", config.get("d_model")), int))
    length = 0 if kind == _APART else configs[0].get("max_position_embeddings", 77)
    if (own > width if joint else own != width) or not isinstance(length, int):
        first = folder / parts[1 if kind == _APART else 0] / NETWORK
        raise ValueError(f"{first}: its tokens have {spell(own)} numbers, and the network takes {width}")
    if alone:
        return TextReader(folder / parts[0], kind, length, width)
    index = read_object(folder / INDEX)
    zero = kind == _SIZED and index.get("force_zeros_for_empty_prompt", True) is True
    return TextReader(folder, kind, length + _T5_TOKENS.get(kind, 0) + 1, width, zero)


def _pixels(folder: Path) -> int:
    """Pixels, each way, that become one position of a pipeline's latents."""
    config = folder / "vae" / NETWORK
    blocks = read_object(config).get("block_out_channels") if config.is_file() else None
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list) else 8


def licence(card: Path) -> str | None:
    """The licence that the head of a model card names; None if it names none."""
    try:
        text = card.read_text(encoding="utf-8", errors="replace")[:10_000]
    except OSError:
        return None
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w .+-]{1,60}?)['\"]?\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else None


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
