"""A real SLURM cluster on this machine, for tests: four virtual nodes with two GPUs each, accounting, preemption.

Everything lies in one temporary folder and listens on free ports, so clusters can stand side by side. Run as a
program, this file is the cluster's undertaker: it waits for the process that holds its input to end, however that
happens, and then ends whatever belongs to the cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psutil

from prerequisites import leave_out

NODES = ("gpu1", "gpu2", "gpu3", "gpu4")
_PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
# Seconds that anything may take on a machine that is busy with other things.
_PATIENCE = 240
_PACKAGES = "apt-get install slurm-wlm slurmdbd munge mariadb-server"


def missing() -> str | None:
    """Why no cluster can be started here, in one line; None if one can."""
    absent = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: {_PACKAGES}"
    return None if os.geteuid() == 0 else "SLURM's daemons for tests run as root, which this is not"


def need_slurm() -> None:
    """Leave a test out where no cluster can be started."""
    reason = missing()
    if reason is not None:
        leave_out(reason)


class Cluster:
    """`with Cluster() as cluster: ...`; up after some seconds, and gone without a trace at the end.

    Partitions: `normal` (the default) and `high`, which preempts `normal` by requeueing, after `grace` seconds.
    A requeued job may start again after some seconds. `max_array_size`: SLURM's MaxArraySize. `options`: further
    lines of slurm.conf, which replace ours of the same name. Raises RuntimeError with the daemons' logs if it does not
    come up.
    """

    def __init__(
        self, *, max_array_size: int = 1001, grace: int = 5, options: Mapping[str, str | int] | None = None
    ) -> None:
        self._max_array_size = max_array_size
        self._grace = grace
        self._options = dict(options or {})
        self._undertaker: subprocess.Popen[bytes] | None = None
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()

    def __enter__(self) -> Cluster:
        for attempt in range(3):
            try:
                return self._begin()
            except RuntimeError as error:
                # Another cluster that starts just now may have taken a port that was free a moment ago.
                if attempt == 2 or "already in use" not in str(error):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _begin(self) -> Cluster:
        # Not pytest's folder: the path of a socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        command = [sys.executable, __file__, str(self.folder)]
        self._undertaker = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the cluster and its jobs, and remove its folder."""
        if self._undertaker is None:
            return
        assert self._undertaker.stdin is not None
        self._undertaker.stdin.close()
        for daemon in self._daemons.values():
            daemon.wait(_PATIENCE)
        self._undertaker.wait(_PATIENCE)
        self._undertaker = None
        self._daemons.clear()

    @property
    def env(self) -> dict[str, str]:
        """The environment in which SLURM's commands, and what calls them, talk to this cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return kept | {"SLURM_CONF": str(self._conf), "PATH": _PATH}

    def without_sacct(self) -> dict[str, str]:
        """`env` where sacct fails, as it does on clusters without accounting."""
        folder = self.folder / "no-accounting"
        folder.mkdir(exist_ok=True)
        sacct = folder / "sacct"
        sacct.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
        sacct.chmod(0o755)
        env = self.env
        return env | {"PATH": f"{folder}{os.pathsep}{env['PATH']}"}

    def run(self, *command: str | Path, check: bool = True, timeout: float = _PATIENCE) -> str:
        """What a command prints, in `env`. With `check`, RuntimeError with its complaint if it fails."""
        done = subprocess.run(
            [str(part) for part in command], env=self.env, text=True, capture_output=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def squeue(self, *arguments: str) -> str:
        """What `squeue --noheader` with `arguments` prints."""
        return self.run("squeue", "--noheader", *arguments)

    def sacct(self, *arguments: str) -> str:
        """What `sacct --noheader --parsable2` with `arguments` prints; it trails the controller by some seconds."""
        return self.run("sacct", "--noheader", "--parsable2", *arguments)

    def scontrol(self, *arguments: str) -> str:
        """What `scontrol` with `arguments` prints."""
        return self.run("scontrol", *arguments)

    def state(self, job: str) -> str:
        """The state of a job that ended at most some minutes ago or has not, as `scontrol show job` tells; else ""."""
        return self._shown(job).get("JobState", "")

    def wait_for_states(
        self, jobs: Mapping[str, str] | list[str], state: str = "COMPLETED", timeout: float = _PATIENCE
    ) -> None:
        """Wait until each job has its state: all the same, or as `jobs` maps. RuntimeError with the queue if not."""
        wanted = dict.fromkeys(jobs, state) if isinstance(jobs, list) else dict(jobs)
        self.wait_until(lambda: all(self.state(job) == state for job, state in wanted.items()), str(wanted), timeout)

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = _PATIENCE) -> None:
        """Wait until `true()`; RuntimeError naming `what` and showing the queue after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                queue = self.run("squeue", "--states=all", "--array", check=False)
                nodes = self.run("sinfo", "--Node", "--long", check=False)
                raise RuntimeError(f"waited {timeout:.0f} s in vain for: {what}\n{queue}\n{nodes}\n{self._logs()}")
            time.sleep(0.2)

    def warn(self, job: str) -> None:
        """Bring the time limit of a running job so near that it is warned now, if it wants 100 seconds of warning.

        SLURM looks at limits every half minute. The limit stays when the job is requeued.
        """
        minutes = int(self.squeue(f"--jobs={job}", "--format=%M").strip().split(":")[-2])
        self.scontrol("update", f"jobid={job}", f"timelimit={minutes + 2}")

    def start_now(self, job: str, restarts: int, minutes: int | None = None) -> None:
        """Spare a job that is queued again, for the `restarts`-th time, the rest of its wait.

        After a warning it needs a new limit of `minutes`, before it starts, or it is warned again at once.
        """

        def soon() -> bool:
            shown = self._shown(job)
            if shown.get("JobState") not in ("PENDING", "RUNNING") or int(shown["Restarts"]) < restarts:
                return False
            # SLURM may refuse either for a moment, so what has not been taken is said again.
            if minutes is not None and shown["TimeLimit"] != f"00:{minutes:02}:00":
                self.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes}", check=False)
                return False
            if shown["JobState"] == "PENDING" and shown["StartTime"] > _clock(10):
                # Not at once: in the second in which a job ended, its node takes the credential of the next attempt for
                # that of the last one, and the job fails.
                self.run("scontrol", "update", f"jobid={job}", "starttime=now+3", check=False)
                return False
            return True

        self.wait_until(soon, f"job {job} to be requeued")

    def clear(self) -> None:
        """Cancel all jobs; returns when none is left."""
        self.run("scancel", "--user=root")
        self.wait_until(lambda: not self.squeue(), "an empty queue")

    def kill_node(self, name: str) -> None:
        """Let a node die: its daemon and all that runs on it are gone at once. SLURM learns it as from a monitor.

        Without being told it would notice as well, SlurmdTimeout later.
        """
        self._daemons[f"slurmd-{name}"].kill()
        self._daemons.pop(f"slurmd-{name}").wait(_PATIENCE)
        _end(lambda process: _belongs(process, self.folder, name))
        self.scontrol("update", f"nodename={name}", "state=down", "reason=killed")

    def revive_node(self, name: str) -> None:
        """Boot a killed node; returns when it takes jobs again."""
        self._start_node(name)
        # Refused if it has registered, and so come back by itself, before this.
        self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self._wait_for_nodes(name)

    @contextmanager
    def controller_down(self) -> Iterator[None]:
        """In the block there is no controller; jobs go on. Afterwards it is back, with what it knew."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(_PATIENCE)
        try:
            yield
        finally:
            self._start_controller()

    def restart_controller(self) -> None:
        """Stop the controller and start it again; returns when it answers."""
        with self.controller_down():
            pass

    def _shown(self, job: str) -> dict[str, str]:
        words = self.run("scontrol", "--oneliner", "show", "job", job, check=False).split()
        pairs = (word.partition("=") for word in reversed(words))
        return {name: value for name, _, value in pairs}

    @property
    def _conf(self) -> Path:
        return self.folder / "slurm.conf"

    def _start(self) -> None:
        folder = self.folder
        # The daemons run as root, jobs may belong to others.
        folder.chmod(0o755)
        munge, database, accounts, controller, *nodes = _free_ports(4 + len(NODES))
        del munge
        self._configure(database, accounts, controller, nodes)
        self._start_munge()
        self._start_database(database)
        self._launch("slurmdbd", "slurmdbd", "-D")
        add = ("sacctmgr", "--immediate", "add", "cluster", "tests")
        self._wait_for_daemon("slurmdbd", lambda: "tests" in self.run(*add, check=False))
        self._start_controller("-c")
        for name in NODES:
            self._start_node(name)
        self._wait_for_nodes(*NODES)

    def _configure(self, database: int, accounts: int, controller: int, nodes: list[int]) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        auth = f"socket={folder}/munge/socket"
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            # A requeued job waits until its old credential has expired: two minutes, or this; below 5 s it is refused.
            "AuthInfo": f"{auth},cred_expire=5",
            "StateSaveLocation": f"{folder}/state",
            "SlurmdSpoolDir": f"{folder}/spool-%n",
            "SlurmctldPidFile": f"{folder}/slurmctld.pid",
            "SlurmdPidFile": f"{folder}/slurmd-%n.pid",
            "SlurmctldLogFile": f"{folder}/slurmctld.log",
            "SlurmdLogFile": f"{folder}/slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "JobAcctGatherType": "jobacct_gather/linux",
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": accounts,
            # So it is: the password is the path of munge's socket.
            "AccountingStoragePass": f"{folder}/munge/socket",
            "GresTypes": "gpu",
            "ReturnToService": 2,
            # Some sites requeue only what asks for it.
            "JobRequeue": 0,
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,sched_min_interval=100000,batch_sched_delay=0",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "OverTimeLimit": 0,
            "KillWait": 2,
            "MinJobAge": 600,
            "SlurmdTimeout": 120,
            "SlurmdParameters": "config_overrides",
            "MaxArraySize": self._max_array_size,
        } | self._options
        lines = [f"{name}={value}" for name, value in settings.items()]
        for name, port in zip(NODES, nodes, strict=True):
            where = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            # More processors than there are: most of these jobs sleep.
            lines.append(f"NodeName={name} {where} CPUs=4 CoresPerSocket=4 RealMemory=4000 Gres=gpu:2")
        names = ",".join(NODES)
        times = "DefaultTime=30 MaxTime=120"
        lines += [
            f"PartitionName=normal Nodes={names} Default=YES PriorityTier=1 GraceTime={self._grace} {times}",
            f"PartitionName=high Nodes={names} PriorityTier=10 PreemptMode=OFF {times}",
        ]
        self._conf.write_text("\n".join(lines) + "\n")
        # SLURM wants a device behind each GPU, and does not look into it.
        (folder / "gres.conf").write_text(f"NodeName={names} Name=gpu File=/dev/null,/dev/zero\n")
        slurmdbd = {
            "AuthType": "auth/munge",
            "AuthInfo": auth,
            "DbdHost": host,
            "DbdAddr": "127.0.0.1",
            "DbdPort": accounts,
            "SlurmUser": "root",
            "LogFile": f"{folder}/slurmdbd.log",
            "PidFile": f"{folder}/slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": database,
            "StorageUser": "slurm",
            "StoragePass": "slurm",
        }
        path = folder / "slurmdbd.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in slurmdbd.items()))

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [f"--{name}-file={folder}/{name}" for name in ("key", "pid", "seed")]
        log = f"--log-file={self.folder}/munged.log"
        self._launch("munged", "munged", "--foreground", "--num-threads=4", *files, log, f"--socket={folder}/socket")
        self._wait_for_daemon("munged", (folder / "socket").exists)

    def _start_database(self, port: int) -> None:
        # Of its own: a server that starts deletes the temporary tables that it finds, another cluster's too.
        temporary = self.folder / "temporary"
        temporary.mkdir()
        where = ("--no-defaults", "--user=root", f"--datadir={self.folder}/database", f"--tmpdir={temporary}")
        self.run("mariadb-install-db", *where, "--auth-root-authentication-method=normal", "--skip-test-db")
        sql = self.folder / "accounts.sql"
        # MariaDB takes each line as one statement.
        sql.write_text("CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';\nGRANT ALL ON *.* TO slurm@'127.0.0.1';\n")
        address = ("--bind-address=127.0.0.1", f"--port={port}", f"--socket={self.folder}/mariadb.socket")
        # Nothing here outlives the cluster, so nothing need reach the disk.
        fast = ("--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M")
        pid = f"--pid-file={self.folder}/mariadb.pid"
        self._launch("mariadbd", "mariadbd", *where, *address, *fast, pid, f"--init-file={sql}")

        def answers() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        self._wait_for_daemon("mariadbd", answers)

    def _start_controller(self, *options: str) -> None:
        self._launch("slurmctld", "slurmctld", "-D", *options)
        self._wait_for_daemon("slurmctld", lambda: "is UP" in self.run("scontrol", "ping", check=False))

    def _start_node(self, name: str) -> None:
        self._launch(f"slurmd-{name}", "slurmd", "-D", "-N", name)

    def _wait_for_nodes(self, *names: str) -> None:
        def idle() -> bool:
            states = self.run("sinfo", "--noheader", f"--nodes={','.join(names)}", "--format=%T", check=False).split()
            return set(states) == {"idle"}

        self.wait_until(idle, f"nodes {', '.join(names)} to be idle")

    def _launch(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            # A session of its own: Ctrl-C in the terminal is for the tests, which then stop the cluster.
            self._daemons[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _wait_for_daemon(self, name: str, up: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not up():
            if self._daemons[name].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not come up\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        """The end of each daemon's log."""
        parts = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")]):
            with suppress(OSError):
                tail = path.read_text(errors="replace").splitlines()[-15:]
                parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)


def _free_ports(number: int) -> list[int]:
    """So many ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _belongs(process: psutil.Process, folder: Path, node: str | None = None) -> bool:
    """Whether `process` is part of the cluster in `folder` (of one node), its jobs included."""
    if process.name() == "slurmstepd":
        # It writes its title over its environment.
        logs = [f"{folder}/slurmd-{name}.log" for name in (NODES if node is None else [node])]
        return any(file.path in logs for file in process.open_files())
    env = process.environ()
    return env.get("SLURM_CONF") == f"{folder}/slurm.conf" and node in (None, env.get("SLURMD_NODENAME"))


def _end(chosen: Callable[[psutil.Process], bool]) -> None:
    """Stop the chosen processes, and those that they start meanwhile, until none runs; then kill them.

    All at once: one that saw another die could still tell the controller of a failure that was none.
    """
    ended: dict[int, psutil.Process] = {}
    for _ in range(100):
        before = len(ended)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                new = process.pid not in ended and process.pid != os.getpid()
                if new and process.status() != psutil.STATUS_ZOMBIE and chosen(process):
                    process.suspend()
                    ended[process.pid] = process
        if len(ended) == before:
            break
    for process in ended.values():
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    sys.stdin.buffer.read()
    cluster = Path(sys.argv[1])
    _end(lambda process: _belongs(process, cluster))
    shutil.rmtree(cluster, ignore_errors=True)


def _clock(ahead: float) -> str:
    """The time so many seconds from now, as SLURM writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + ahead))
