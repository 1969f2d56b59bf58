"""A text-to-image pipeline of diffusers, written from an imported model: its language models are copied as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.conditioners.text import Text
from diffsweep.conditioners.text_encoder import PIPELINES, pipeline_content

_CLASSES = {
    "stable_diffusion": "StableDiffusionPipeline",
    "stable_diffusion_xl": "StableDiffusionXLPipeline",
    "stable_diffusion_3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
# What language models and tokenizers are made of; anything else of a folder may be code.
_COPIED = (".json", ".txt", ".model", ".safetensors")
# Settings of a pipeline that are no parts of it.
_SETTINGS = ("force_zeros_for_empty_prompt", "requires_safety_checker")


@dataclass(frozen=True)
class LanguageModels:
    """Those of a pipeline that was imported, where they still lie.

    Attributes:
        kind: Of the pipeline, as of condition.text.pipeline.
        folder: Of the pipeline.
        index: Its model_index.json.
    """

    kind: str
    folder: Path
    index: Mapping[str, Any]

    @classmethod
    def of(cls, text: Text) -> LanguageModels:
        """Those that a condition is read by.

        Raises:
            ValueError: if it is read by no pipeline, or that is no longer there, or another one now.
        """
        from diffsweep.interop.configuration import read_object
        from diffsweep.interop.diffusers_folder import INDEX

        if text.pipeline is None:
            raise ValueError("its model is told text by a language model alone, which no pipeline passes on")
        where = f"its language models are no longer in {text.encoder}"
        try:
            found = pipeline_content(text.encoder, text.pipeline)
        except ValueError as error:
            raise ValueError(f"{where}, and a pipeline needs them ({error})") from error
        if found != text.content:
            raise ValueError(f"{where}: there are others now")
        several = len(PIPELINES[text.pipeline]) > 1
        folder = Path(text.encoder) if several else Path(text.encoder).parent
        return cls(text.pipeline, folder, read_object(folder / INDEX))

    @property
    def pipeline(self) -> str:
        """Name of the pipeline's class in diffusers."""
        return _CLASSES[self.kind]

    @property
    def ignores_shift(self) -> bool:
        """Whether the pipeline decodes latents without the shift of the autoencoder's config."""
        return self.kind in ("stable_diffusion", "stable_diffusion_xl")

    def entries(self) -> dict[str, Any]:
        """What model_index.json says of them, and of how texts are read."""
        found = {name: self.index[name] for name in self._parts() if name in self.index}
        found |= {name: value for name in _SETTINGS if isinstance(value := self.index.get(name), bool)}
        if self.kind == "stable_diffusion":
            found |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        return found

    def write(self, folder: Path) -> None:
        """Copy them into the folder of another pipeline."""
        for name in self._parts():
            for file in sorted((self.folder / name).glob("*")):
                if file.is_file() and file.suffix in _COPIED:
                    (folder / name).mkdir(exist_ok=True)
                    shutil.copyfile(file, folder / name / file.name)

    def _parts(self) -> list[str]:
        models = PIPELINES[self.kind]
        return [*models, *(name.replace("text_encoder", "tokenizer") for name in models)]
