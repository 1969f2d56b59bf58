"""Lightning's trainer as every stage of a run uses it: devices of the config, whole files, no handlers of its own."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins.io import CheckpointIO

from diffsweep.files import atomic
from diffsweep.mistakes import BadValue, one_of
from diffsweep.settings import TrainerSettings

# Number formats and strategies that a training is tested with. Lightning has more: weights in half or double precision,
# and processes that are spawned, fail in the middle of a training, and other names are changed on the way.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def make_trainer(settings: TrainerSettings, folder: Path, *, exact: bool = True, **kwargs: Any) -> Trainer:
    """A quiet Lightning trainer on the devices of the settings; all its files stay below ``folder``.

    Args:
        settings: Devices and number format.
        folder: Where it may write.
        exact: Whether what Lightning would change of the settings is refused, since it is recorded as it was given.
        kwargs: Further arguments of Lightning's trainer.

    Raises:
        ValueError: if the devices are not there, do not match the SLURM job's tasks, or would compute otherwise than
            the settings say.
    """
    if exact:
        one_of("trainer.precision", settings.precision, PRECISIONS)
        if "fsdp" in settings.strategy:
            rule = "is not offered, for that of Lightning runs on GPUs only and is not tested: choose auto or ddp"
            raise BadValue("trainer.strategy", settings.strategy, f"{rule}, with trainer.activation_checkpointing=true")
        one_of("trainer.strategy", settings.strategy, STRATEGIES)
    trainer = _trainer(settings, folder, **kwargs)
    if exact:
        _refuse_changes(settings, trainer)
    return trainer


def _refuse_changes(settings: TrainerSettings, trainer: Trainer) -> None:
    """Refuse settings that the trainer on these devices does not have: it would run, under the name of another one."""
    device = trainer.strategy.root_device.type
    if trainer.precision != settings.precision:
        raise BadValue(
            "trainer.precision",
            settings.precision,
            f"does not run on {device}, where it would become {trainer.precision}: choose {trainer.precision}",
        )
    if settings.cuda_graphs and device != "cuda":
        raise BadValue("trainer.cuda_graphs", True, f"records the kernels of a GPU, and this is {device}: leave it out")
    for key, given, found in (
        ("devices", settings.devices, trainer.num_devices),
        ("num_nodes", settings.num_nodes, trainer.num_nodes),
    ):
        if isinstance(given, int) and given > 0 and given != found:
            raise BadValue(f"trainer.{key}", given, f"cannot be had on {device}: it would become {found}")


def _trainer(settings: TrainerSettings, folder: Path, **kwargs: Any) -> Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in ("does not have many workers", "LeafSpec", "not resumable", "`srun` command is available"):
        warnings.filterwarnings("ignore", message=f".*{noise}.*")
    placement: dict[str, Any] = {
        key: getattr(settings, key) for key in ("accelerator", "devices", "num_nodes", "strategy", "precision")
    }
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        return Trainer(
            **placement,
            deterministic=settings.deterministic,
            default_root_dir=folder,
            plugins=[WholeFiles(), _environment(settings)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **kwargs,
        )
    except Exception as error:
        # Lightning raises its own MisconfigurationException and RuntimeError for devices that are not there.
        words = " ".join(f"trainer.{key}={value}" for key, value in placement.items())
        reason = " ".join(str(error).split())
        raise ValueError(f"no such trainer here ({words}): {reason}; trainer=cpu runs everywhere") from error


def _environment(settings: TrainerSettings) -> LightningEnvironment | SLURMEnvironment:
    # Without a step (sbatch without srun) SLURM's variables describe the batch script, not the tasks of a training.
    if "SLURM_STEP_ID" not in os.environ or not SLURMEnvironment.detect():
        return LightningEnvironment()
    devices, tasks = settings.devices, int(os.environ["SLURM_NTASKS"])
    if isinstance(devices, int) and devices > 0 and devices * settings.num_nodes != tasks:
        raise ValueError(
            f"trainer.devices={devices} x trainer.num_nodes={settings.num_nodes} must equal the SLURM job's "
            f"{tasks} tasks: each task drives one device"
        )
    return SLURMEnvironment(auto_requeue=False)


class WholeFiles(CheckpointIO):
    """Lightning's checkpoint files, written atomically and read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Interrupted(SystemExit):
    """Raised after a signal stopped a training, whose state is saved, or a sampling; the exit code is 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


@atexit.register
def _leave_process_group() -> None:
    """End this rank's part in the group of processes before the interpreter does.

    A thread of the group that is alive then may abort the process, and for a helper that fails Lightning kills a leader
    that is still evaluating.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
