"""A cluster that Ray's launcher brings up over ssh, and jobs on it.

The cluster file is the one that ships for machines of one's own, but for addresses, key, and paths: the hosts share
this machine's files, so nothing is copied or installed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import selfplay
from tests.e2e.hosts import Hosts

BIN = Path(sys.executable).parent
ROOT = Path(selfplay.__file__).resolve().parent.parent
PATIENCE_S = 300.0
#: On a host that has this file Ray does not start, once.
FAILS = "~/fails"
OURS = tuple(f"ray::{name}" for name in ("Player", "Student", "Examiner", "Archivist", "WeightServer"))


def until(reached: Callable[[], Any], what: str, told: Callable[[], str] = lambda: "") -> Any:
    """Waits until `reached` gives something true, and returns it. told: what to say where that does not come."""
    end = time.monotonic() + PATIENCE_S
    while not (found := reached()):
        assert time.monotonic() < end, f"not seen in {PATIENCE_S:.0f} s: {what}\n{told()}"
        time.sleep(1.0)
    return found


def bucket(gateway: str) -> bool:
    """Makes it; whether that worked."""
    try:
        request = urllib.request.Request(f"http://{gateway}:5555/bucket", method="PUT")
        urllib.request.urlopen(request, timeout=5).close()
    except OSError:
        return False
    return True


class Cluster:
    """A head and workers, brought up by Ray's launcher."""

    def __init__(self, hosts: Hosts, workers: int) -> None:
        self.hosts, self.head = hosts, hosts.addresses[0]
        self.file = hosts.folder / "machines.yaml"
        self.write(workers)

    def write(self, workers: int) -> None:
        """The shipped file with these hosts' addresses, key and folders."""
        text = (ROOT / "trainers/clusters/machines.yaml").read_text()
        shipped = yaml.safe_load(text.replace("~/factory-venv", str(BIN.parent)))
        shipped["cluster_name"] = self.hosts.folder.name
        shipped["provider"] |= {"head_ip": self.head, "worker_ips": self.hosts.addresses[1 : 1 + workers]}
        shipped["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        shipped["file_mounts"] = {}
        shipped["setup_commands"] = [command for command in shipped["setup_commands"] if "pip" not in command]
        start = f"$(rm {FAILS} 2>/dev/null && echo false) ray start"
        for key, cores in (("head_start_ray_commands", ""), ("worker_start_ray_commands", " --num-cpus=1")):
            here = f"{start} --node-ip-address=$HOST_ADDRESS --object-store-memory=200000000{cores}"
            shipped[key][-1] = shipped[key][-1].replace("ray start", here)
        self.file.write_text(yaml.safe_dump(shipped))

    def fail_to_start(self, address: str) -> Path:
        """Ray will not start there at the first try; the file that is gone when it has been tried."""
        once = self.hosts.home(address) / FAILS.removeprefix("~/")
        once.touch()
        return once

    def ray(self, *words: str) -> str:
        """Ray's command on this machine, the launching one."""
        done = subprocess.run(
            [str(BIN / "ray"), *words], capture_output=True, text=True, cwd=self.hosts.folder,
            env={**os.environ, "HOME": str(self.hosts.folder), "RAY_AUTH_MODE": "token"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *options: str) -> None:
        self.ray("up", "-y", "--no-config-cache", *options, str(self.file))

    def down(self) -> None:
        """Returns when no host has a raylet."""
        self.ray("down", "-y", str(self.file))
        until(lambda: not self.processes("raylet"), "no raylet", lambda: str(self.processes("raylet")))

    def on_head(self, command: str) -> str:
        done = self.hosts.run(self.head, f"PATH={BIN}:$PATH {command}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *words: str, wait: bool = False) -> str:
        """The id of a job; with `wait` what it printed, and then it must have ended well."""
        options = "--address=http://127.0.0.1:8265" + " --no-wait" * (not wait)
        told = self.on_head(f"ray job submit {options} -- selfplay {shlex.join(words)} 2>&1")
        return told if wait else next(word.strip("'") for word in told.split() if word.startswith("'raysubmit_"))

    def here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Our command on this machine, which is none of the cluster's."""
        command = [str(BIN / "selfplay"), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.hosts.folder)

    def job(self, verb: str, job: str) -> str:
        return self.on_head(f"ray job {verb} --address=http://127.0.0.1:8265 {job} 2>&1")

    def processes(self, *titles: str) -> dict[tuple[str, str], str]:
        """Of all hosts that answer, those whose name begins so: (address, id and beginning) -> name."""
        found = {}
        for address in self.hosts.addresses:
            for line in self.hosts.run(address, "ps -eo pid,lstart,args --no-headers").stdout.splitlines():
                words = line.split()
                name = words[6].rpartition("/")[2]
                if name.startswith(titles):
                    found[address, " ".join(words[:6])] = name
        return found
