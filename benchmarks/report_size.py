"""Size and time of a report of many cells: `python benchmarks/report_size.py --cells 24 500 10000`.

The results are made up, with the keys of real ones, and written through the store; each report is rendered in this
process, imports left out, and its CPU seconds and bytes are told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffsweep.report import page
from diffsweep.report.comparison import Comparison
from diffsweep.sweep.store.record import Fit, write_json
from diffsweep.sweep.store.result import Result

SAMPLERS = ("ddim", "heun", "dpmpp_2m", "unipc", "deis", "euler")
SCHEDULES = ("cosine", "linear", "sigmoid")
NFES = (5, 10, 20, 50)
BLOCKS = 20


def results(runs: Path, cells: int, configs: dict[str, dict[str, Any]], search: bool = False) -> Iterator[Result]:
    """Made-up results below `runs`, with their folders, configs (also in `configs`) and training curves."""
    draw = random.Random(0)
    common = [draw.gauss(0, 0.004) for _ in range(BLOCKS)]
    choices = itertools.islice(itertools.product(range(cells), SCHEDULES, SAMPLERS, NFES), cells)
    for i, (seed, schedule, sampler, nfe) in enumerate(choices):
        rates = f" optimizer.lr={10 ** draw.uniform(-5, -2)!r}" if search else ""
        rate = 10 ** draw.uniform(-5, -2)
        value = 1 + 0.1 * SAMPLERS.index(sampler) + 0.2 * SCHEDULES.index(schedule) + 2 / nfe + 0.01 * seed
        blocks = [value + one + draw.gauss(0, 0.0005) for one in common]
        fit, cell = f"{seed:06x}{SCHEDULES.index(schedule):06x}", f"{i:012x}"
        record: dict[str, Any] = {
            "cell": cell,
            "fit": fit,
            "status": "done",
            "overrides": f"schedule={schedule} sampler={sampler} sampler.nfe={nfe} seed={seed}{rates}",
            "diffuser": "v",
            "sampler": sampler,
            "schedule": schedule,
            "backbone": "unet",
            "dataset": "digits",
            "guidance": "none",
            "metric": "fd_digits",
            "fd_digits": value,
            "fd_digits_low": value - 0.1,
            "fd_digits_high": value + 0.1,
            "fd_digits_floor": 0.2,
            "fd_digits_jackknife": " ".join(f"{one:.9g}" for one in blocks),
            "fd_digits_by": "Frechet output=features",
            "precision_digits": 1 / value,
            "precision_digits_floor": 0.9,
            "samples": 500,
            "sample_seed": 0,
            "reference_split": "train",
            "reference_samples": 1297,
            "reference_digest": "abcdefabcdef",
            "extractor": "digits",
            "extractor_digest": "0123456789ab",
            "resize": "none",
            "bits": 8,
            "nfe": nfe,
            "seed": seed,
            "fit_seconds": 80.0 + draw.random(),
            "sample_seconds": 0.1 * nfe + draw.random() / 100,
            "evaluate_seconds": 0.5 + draw.random() / 100,
            "git_commit": "e" * 40,
            "version_torch": "2.0",
            "host": "node",
            "created": "2026-11-30T09:00:00+00:00",
        }
        folder = Fit(runs / "fits" / fit)
        folder.cell(cell).folder.mkdir(parents=True, exist_ok=True)
        config = {"sampler": sampler, "schedule": schedule, "seed": seed, "optimizer": {"lr": rate}}
        config |= {f"part_{k}": {"_target_": "some.module.Name", "numbers": list(range(6))} for k in range(12)}
        configs[cell] = config
        if not folder.metrics_file.exists():
            lines = [json.dumps({"step": 50 * k, "loss": 1 / (k + 1) + draw.random() / 100}) for k in range(200)]
            folder.metrics_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        result = Result.parse(record)
        write_json(folder.cell(cell).result_file, result.flat())
        yield result


def seconds_in_browser(file: Path) -> float:
    """From the opening of a page to its table and plots being there, in headless Chromium."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from browsers import headless, wait

    with headless() as browser:
        browser.get("about:blank")
        clock = time.perf_counter()
        browser.get(file.as_uri())
        wait(browser, "document.querySelectorAll('#table .tabulator-row').length > 3", seconds=300)
        wait(browser, "document.querySelectorAll('.js-plotly-plot').length > 3", seconds=300)
        return time.perf_counter() - clock


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[24, 500, 10_000])
    parser.add_argument("--browser", action="store_true", help="also the seconds until Chromium shows table and plots")
    options = parser.parse_args()
    for cells in options.cells:
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder)
            configs: dict[str, dict[str, Any]] = {}
            # A sweep's configs are in its plan.
            about = Comparison("made up", runs, list(results(runs, cells, configs)), configs=configs)
            page.render(Comparison("warm", runs, about.results[:2]))
            clock, cpu = time.perf_counter(), time.process_time()
            text = page.render(about)
            spent = time.process_time() - cpu
            print(
                f"{cells:>6,} cells  {len(text.encode()) / 1e6:6.2f} MB  {spent:6.2f} CPU s  "
                f"{time.perf_counter() - clock:6.2f} s"
            )
            if options.browser:
                (runs / "page.html").write_text(text, encoding="utf-8")
                print(f"{'':>12}  {seconds_in_browser(runs / 'page.html'):6.2f} s in the browser", flush=True)


if __name__ == "__main__":
    main()
