"""Trainings of a plan that are one method under two names, which a sweep would pay for twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.signature import INFERENCE, fit_signature

# Target -> one that is the same but for its sign, which a network learns just as well.
SAME_BUT_SIGN: Mapping[str, str] = {"diffsweep.diffusion.target.Score": "diffsweep.diffusion.target.Eps"}


def same_methods(plan: Plan) -> Iterator[str]:
    """A line for the options of each two trainings of a plan that are the same method."""
    said = set()
    for fit, cells in plan.fits.items():
        diffuser = plan.part(cells[0], "diffuser")
        other = _with_other_target(diffuser) if isinstance(diffuser, Mapping) else None
        if other is None:
            continue
        twin = fit_signature({**plan.config(cells[0]), "diffuser": other})
        if twin in plan.fits:
            first, second = (plan.run(plan.fits[one][0]).choices for one in (twin, fit))
            groups = [group for group in first if first[group] != second.get(group)]
            shown = [group for group in groups if group.split("/")[0] not in INFERENCE]
            names = [" ".join(f"{group}={one.get(group)}" for group in shown[:1]) for one in (first, second)]
            said.add(f"{names[0]} and {names[1]} are the same method: they differ in the sign of what is predicted")
    yield from sorted(said)


def _with_other_target(diffuser: Mapping[str, Any]) -> Mapping[str, Any] | None:
    target = diffuser.get("target")
    same = SAME_BUT_SIGN.get(str(target.get("_target_"))) if isinstance(target, Mapping) else None
    return None if same is None else {**diffuser, "target": {**dict(target), "_target_": same}}  # type: ignore[arg-type]
