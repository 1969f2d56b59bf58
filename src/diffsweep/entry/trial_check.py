"""What a single run is checked for, for the trials of a search, before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffsweep.entry.check import refuse_impossible
from diffsweep.sweep.plan.compose import compose
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.store.signature import Signer

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig


def refuse_impossible_trials(search: Search, loader: ConfigLoader, master: DictConfig, *, devices: bool) -> Plan:
    """Raise as `refuse_impossible` for trials of a search that has not begun; returns the trials that were looked at.

    Raises also what Hydra says about overrides, and ValueError for a key that nothing reads.
    """
    sign = Signer().sign
    plan = Plan(search.folder, search.runs, hydra=search.composition.hydra).with_tasks(
        SignedConfig(cell.overrides, cell.config, cell.choices, *sign(cell.config))
        for cell in compose(loader, master, search.probes(), refuse_unread)
    )
    refuse_impossible(plan, [cell for cell in plan.cells if not plan.cell(cell).done], devices=devices)
    return plan
