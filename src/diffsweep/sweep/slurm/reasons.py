"""SLURM's reasons in words for the user: why it refuses a job, why a job waits, and what to do about it."""

from __future__ import annotations

import re

from diffsweep.sweep.slurm.commands import run
from diffsweep.sweep.slurm.resources import Resources

# Words of a refusal -> the resources that it is about.
_ABOUT: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("account", ("account", "partition")),
    ("partition", ("partition",)),
    ("qos", ("qos",)),
    ("generic resource", ("gres",)),
    ("gres", ("gres",)),
    ("time limit", ("time",)),
    ("memory", ("memory",)),
    ("feature", ("constraint",)),
    ("node name", ("exclude",)),
    ("cpu count", ("cpus",)),
    ("node count", ("nodes",)),
    ("node configuration", ("partition", "gres", "memory", "cpus", "constraint", "exclude", "nodes", "tasks_per_node")),
)

_CHOOSE = "choose another partition, or ask the site"
# Reasons of a waiting job that somebody must do something about, in squeue's words -> meaning, and what to do.
# The beginning of the reason decides; see "JOB REASON CODES" of squeue's manual.
_WAITING: tuple[tuple[str, str, str], ...] = (
    ("PartitionDown", "its partition is down", _CHOOSE),
    ("PartitionInactive", "its partition takes no jobs now", _CHOOSE),
    ("PartitionTimeLimit", "its time limit is longer than its partition allows", "lower {key}.time"),
    ("PartitionNodeLimit", "it wants more nodes than its partition allows", "lower trainer.num_nodes"),
    ("PartitionConfig", "its partition cannot hold it", "ask for less in {key}, or choose another partition"),
    ("ReqNodeNotAvail", "the nodes that it needs are down, drained or reserved", _CHOOSE),
    ("Nodes required for job are DOWN", "the nodes that it needs are down, drained or reserved", _CHOOSE),
    ("NodeDown", "the node that it needs is down", _CHOOSE),
    ("BadConstraints", "no node can satisfy it", "ask for less in {key}, or drop {key}.constraint"),
    ("JobHeldUser", "you hold it", "`scontrol release` and its job's number"),
    ("JobHeldAdmin", "an administrator holds it", "ask the site"),
    (
        "launch failed requeued held",
        "its start failed on a node",
        "`scontrol release` and its job's number; if it comes back, ask the site",
    ),
    ("InvalidAccount", "its account is not valid", "set {key}.account"),
    ("AccountNotAllowed", "its account may not use this partition", "set {key}.account or {key}.partition"),
    ("InvalidQOS", "its QOS is not valid", "set {key}.qos"),
    ("QOSNotAllowed", "its QOS may not be used here", "set {key}.qos or {key}.partition"),
    ("QOSGrp", "its QOS has no more room for its group", "wait, or set {key}.qos"),
    ("QOSMax", "you have reached a limit of its QOS", "wait for your other jobs, or set {key}.qos"),
    ("QOSMin", "it asks for less than its QOS demands", "set {key}.qos"),
    ("QOS", "a limit of its QOS holds it back", "wait, or set {key}.qos"),
    ("AssocGrp", "your group has reached a limit of its account", "wait, or set {key}.account"),
    ("AssocMax", "you have reached a limit of your account", "wait for your other jobs, or set {key}.account"),
    ("Assoc", "a limit of your account holds it back", "wait, or set {key}.account"),
    ("MaxGRESPerAccount", "your account has reached its limit of GPUs", "wait"),
    ("Licenses", "it waits for a licence", "wait"),
    ("Reservation", "it waits for its reservation", "wait, or drop the reservation"),
    ("DependencyNeverSatisfied", "what it depends on has failed", "resume the sweep"),
)


def refusal(text: str) -> str:
    """Everything that a command of SLURM complained about, in one line, each complaint once."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    plain = [re.sub(r"^(\w+: )?(error|fatal): ", "", line) for line in lines]
    plain = [line.removeprefix("Batch job submission failed: ").rstrip(".") for line in plain]
    kept = {line.lower(): line for line in plain if line and not line.startswith("subprocess.CalledProcessError")}
    return "; ".join(kept.values()) or "no reason given"


def refusal_of(text: str, resources: Resources, key: str) -> str:
    """`refusal` of a job with these resources, with the settings below the config key `key` that it is about.

    Of a partition the line also names those that there are.
    """
    reason = refusal(text)
    names = next((names for words, names in _ABOUT if words in reason.lower()), ())
    given = [f"{key}.{name}={value}" for name in names if (value := getattr(resources, name, None)) not in (None, 1)]
    found = partitions() if "partition" in names else []
    line = reason + (f" ({', '.join(given)})" if given else "")
    return line + (f"; partitions here: {', '.join(found)}" if found else "")


def partitions() -> list[str]:
    """The names of the partitions of this cluster; none if it cannot be asked."""
    done = run(["sinfo", "--noheader", "--all", "--format=%R"])
    return sorted(set(done.stdout.split())) if done is not None and not done.returncode else []


def waiting_reason(reason: str, key: str) -> str:
    """Why a job waits and what to do, if anybody must do something: `its partition is down (PartitionDown): ...`.

    `reason` as squeue writes it, `key` of the job's resources in the config. Empty for a job that only waits its turn.
    """
    for beginning, meaning, advice in _WAITING:
        if reason.strip("()").startswith(beginning):
            return f"{meaning} ({reason.strip('()')}): {advice.format(key=key)}"
    return ""
