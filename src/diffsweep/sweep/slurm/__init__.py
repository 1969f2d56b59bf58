"""SLURM, through submitit and its own commands: jobs are submitted, their state is read, they are cancelled.

resources.py is what a job asks for, setup.py its shell lines, submission.py makes callables into jobs, queue.py reads
their state and cancels them, reasons.py puts SLURM's reasons into words, commands.py runs its commands.
"""

from diffsweep.sweep.slurm.commands import available
from diffsweep.sweep.slurm.queue import QueueEntry, cancel, history, queue
from diffsweep.sweep.slurm.reasons import waiting_reason
from diffsweep.sweep.slurm.resources import Resources, minutes
from diffsweep.sweep.slurm.setup import SETUP_COMPLAINT
from diffsweep.sweep.slurm.submission import Work, submit

__all__ = [
    "SETUP_COMPLAINT",
    "QueueEntry",
    "Resources",
    "Work",
    "available",
    "cancel",
    "history",
    "minutes",
    "queue",
    "submit",
    "waiting_reason",
]
