"""A process that computes imports of torchmetrics what Lightning needs, and everything only when it is asked for."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import diffsweep.entry.job_process
import diffsweep.runs.stages
from torchmetrics import Metric, MetricCollection

print(*({"scipy.signal", "torchvision", "transformers", "torchmetrics.functional"} & sys.modules.keys()))
import torchmetrics
import torchmetrics.image
from torchmetrics import *
from torchmetrics.functional.image import peak_signal_noise_ratio

assert torchmetrics.Metric is Metric and torchmetrics.MetricCollection is MetricCollection
assert issubclass(torchmetrics.MeanMetric, Metric) and MeanMetric is torchmetrics.MeanMetric
assert torchmetrics.__version__[0].isdigit() and not hasattr(torchmetrics, "no_such_metric")
print(len(torchmetrics.__all__) > 50)
"""


def test_a_job_imports_no_metric_of_torchmetrics_and_who_wants_one_has_it() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", "True"]


def test_who_imports_the_package_has_torchmetrics_as_it_is() -> None:
    program = "import sys, diffsweep, torchmetrics; print('torchmetrics.functional' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
