"""How the samples of finished cells arise from noise, step by step, for the animations of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffsweep.messages import say
from diffsweep.results.resample import sample_request
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import Result

# The most cells that are animated, and the most samples of each.
_CELLS, _SAMPLES = 24, 16


def animations(ranking: Sequence[Result], count: int, runs: Path) -> dict[str, dict[str, Any]]:
    """Cell -> animation of its first `count` samples, for the first 24 cells of `ranking` that have a model.

    They are drawn anew, without training. Raises ValueError for more samples than a page can show.
    """
    if count > _SAMPLES:
        raise ValueError(f"--animate {count} is too much for one page: at most {_SAMPLES}")
    import_from(Path.cwd())
    from diffsweep.report.animation import clouds_motion, motion
    from diffsweep.runs import resample

    own = [result for result in ranking if result.images is None][:_CELLS]
    animated = {}
    for result in tqdm(own, "animating", unit="cell", disable=None, leave=False):
        cell = Cell.of(result, runs)
        try:
            request = sample_request(cell)
            drawn = resample.resample(
                request.cfg,
                request.fit,
                count,
                # Of a few points nobody sees where they go.
                points=resample.POINTS,
                seed=request.seed,
                follow=True,
                show=False,
            )
        except ValueError as error:
            say(f"not animated: {cell.signature}: {' '.join(str(error).split())}")
            continue
        frames = [(left.numpy(), right.numpy()) for left, right in drawn.pictures()]
        animated[cell.signature] = clouds_motion(frames) if drawn.modality.picture is None else motion(frames)
    return animated
