"""The batches of a training as Lightning asks for them."""

from __future__ import annotations

import functools

from lightning import LightningDataModule

from diffsweep.data.source import Source
from diffsweep.settings import LoadingSettings
from diffsweep.training.batches import Batches, resident


class TrainingData(LightningDataModule):
    """Puts the data on the device, if they fit there, and starts the batches at the checkpoint's step."""

    def __init__(self, batches: functools.partial[Batches], source: Source, loading: LoadingSettings) -> None:
        super().__init__()
        self.batches, self.source, self.loading = batches, source, loading

    def train_dataloader(self) -> Batches:
        trainer = self.trainer
        assert trainer is not None
        device = trainer.strategy.root_device
        here = resident(self.source, device, self.loading)
        return self.batches(
            self.source if here is None else here,
            start=trainer.global_step,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            device=device,
            loading=self.loading if here is None else None,
        )
