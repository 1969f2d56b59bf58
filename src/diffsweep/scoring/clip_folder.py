"""A folder of CLIP, as transformers save it: what it is, told without torch where configs are composed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffsweep.files import read_json
from diffsweep.mistakes import BadValue, spell
from diffsweep.transformers_folder import TOKENIZER, check_folder, content_of_files

_CONFIG = "config.json"
# How pictures are brought to the network; transformers 5 writes the second.
_PICTURES = ("preprocessor_config.json", "processor_config.json")
_HOW = "hf download openai/clip-vit-large-patch14 --local-dir clip"


def clip_folder(folder: object) -> Path:
    """The folder, if it holds a whole CLIP.

    Raises:
        BadValue: of `folder`, saying how to get one, or what it lacks.
    """
    if not isinstance(folder, str) or not folder.strip():
        rule = f"names no folder of CLIP's weights, which no package has: get them, as by '{_HOW}', and name the folder"
        raise BadValue("folder", folder, rule)
    found = check_folder("folder", folder)
    kind = (read_json(found / _CONFIG) or {}).get("model_type")
    if kind != "clip":
        raise BadValue("folder", folder, f"has a model of the kind {spell(kind)}, not clip: '{_HOW}' gets one")
    if not any((found / name).is_file() for name in _PICTURES):
        raise BadValue("folder", folder, f"has no {_PICTURES[0]}: save that of the model there too ('{_HOW}' does)")
    return found


def clip_content(folder: object) -> str:
    """The identity of a CLIP, 16 hex characters: a hash of its weights, config, tokenizer and how it sees pictures.

    Raises:
        BadValue: as `clip_folder`.
    """
    found = clip_folder(folder)
    read = {path for name in (_CONFIG, *TOKENIZER, *_PICTURES) if (path := found / name).is_file()}
    return content_of_files({*found.glob("*.safetensors"), *read})


def clip_architecture(folder: object) -> str:
    """Which CLIP it is in a few words, as ViT 24x1024/14 at 224 pixels; errors as `clip_folder`."""
    vision: Any = (read_json(clip_folder(folder) / _CONFIG) or {}).get("vision_config")
    # What a config leaves out is as in transformers.
    usual = {"num_hidden_layers": 12, "hidden_size": 768, "patch_size": 32, "image_size": 224}
    said = usual | (vision if isinstance(vision, dict) else {})
    layers, width, patch, pixels = (said[key] for key in usual)
    return f"ViT {layers}x{width}/{patch} at {pixels} pixels"
