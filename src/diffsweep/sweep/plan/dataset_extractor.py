"""Which option of `extractor` a dataset has if none is chosen: that of its own name where there is one, else `auto`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra._internal.config_repository import IConfigRepository

AUTO = "auto"

# Where the composition that goes on finds its options.
_repository: ContextVar[IConfigRepository | None] = ContextVar("repository", default=None)


def resolve_extractors_of_datasets() -> None:
    """Give Hydra, in this process, the resolver `${extractor_of:DATASET}` for lists of defaults.

    Which options there are depends on --config-dir and hydra.searchpath, and Hydra tells no resolver: so the function
    that makes a list of defaults notes it.
    """
    from hydra._internal import config_loader_impl
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("extractor_of", _extractor_of, replace=True)
    create: Any = config_loader_impl.create_defaults_list  # pyright: ignore[reportPrivateImportUsage]
    if getattr(create, "notes_repository", False):
        return

    def create_defaults_list(repo: IConfigRepository, *args: Any, **kwargs: Any) -> Any:
        token = _repository.set(repo)
        try:
            return create(repo, *args, **kwargs)
        finally:
            _repository.reset(token)

    create_defaults_list.notes_repository = True  # type: ignore[attr-defined]
    config_loader_impl.create_defaults_list = create_defaults_list  # type: ignore[assignment]


def _extractor_of(dataset: str) -> str:
    repository = _repository.get()
    return dataset if repository is not None and repository.config_exists(f"extractor/{dataset}") else AUTO
