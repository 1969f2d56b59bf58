"""Lists of defaults are made as Hydra makes them, without what no entry of theirs reads."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from omegaconf import OmegaConf

from finished_runs import CONF


def composed(*words: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(words), return_hydra_config=True))


@pytest.mark.parametrize(
    "words", [[], ["dataset=fashion_mnist"], ["dataset=mixture", "backbone=mlp"], ["experiment=toy", "sampler=heun"]]
)
def test_the_config_is_that_of_hydra_and_choices_are_built_where_they_are_read(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    composed()
    ours: Any = defaults_list._create_interpolation_map
    built: list[bool] = []

    def noted(*given: Any) -> Any:
        choices = ours(*given)
        built.append(bool(choices))
        return choices

    monkeypatch.setattr(defaults_list, "_create_interpolation_map", noted)
    config = composed(*words)
    assert len(built) > 20
    assert 0 < sum(built) < 5
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", ours.of_hydra)
    assert composed(*words) == config
