"""Several hosts on one: network namespaces with addresses of their own, and in each an ssh server.

Each host has a name and a process namespace, too: `ray stop` there sees only its own, and with the host's first process
all end, as when a machine loses power. Files are shared, but for a home and /tmp/ray. Needs root, iproute2,
openssh-server and rsync.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
TOOLS = ("ip", "sshd", "ssh-keygen", "rsync", "unshare")


def missing() -> str | None:
    """What this machine lacks to have hosts, in words; None: nothing."""
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=_PATH)]
    if absent:
        return f"needs {', '.join(absent)} (Debian: apt install iproute2 openssh-server rsync)"
    return None if os.geteuid() == 0 else "needs root, to make network namespaces"


def sh(*words: object, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


class Hosts:
    """Hosts at 10.x.y.2 and on; this machine itself is 10.x.y.1, the gateway.

    folder: keys, homes and Ray's folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._tag = folder, f"sp{os.getpid() % 100_000}"
        self.gateway = f"10.{213 + os.getpid() % 20}.{os.getpid() // 20 % 256}.1"
        self.key, self.addresses = folder / "key", list[str]()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._variables: dict[str, str] = {}
        Path("/run/sshd").mkdir(exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key")
        sh("ip", "link", "add", self._tag, "type", "bridge")
        sh("ip", "addr", "add", f"{self.gateway}/24", "dev", self._tag)
        sh("ip", "link", "set", self._tag, "up")

    def add(self, count: int, variables: Mapping[str, str]) -> None:
        """More hosts. variables: of every login there."""
        self._variables |= variables
        for _ in range(count):
            self.addresses.append(f"{self.gateway.rpartition('.')[0]}.{2 + len(self.addresses)}")
            self._make(self.addresses[-1])

    def _names(self, address: str) -> tuple[str, str]:
        """Of the namespace, and of this end of the cable."""
        number = address.rpartition(".")[2]
        return f"{self._tag}h{number}", f"{self._tag}v{number}"

    def home(self, address: str) -> Path:
        return self.folder / address

    def _make(self, address: str) -> None:
        space, cable = self._names(address)
        sh("ip", "netns", "add", space)
        sh("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "link", "set", cable, "master", self._tag, "up")
        sh("ip", "-n", space, "link", "set", "lo", "up")
        sh("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        sh("ip", "-n", space, "link", "set", "eth0", "up")
        (self.home(address) / "ray").mkdir(parents=True)
        (self.home(address) / ".bashrc").touch()
        self.boot(address)

    def boot(self, address: str) -> None:
        """Starts the host's ssh server, the first process of its process namespace."""
        told = " ".join(f'"{name}={value}"' for name, value in {**self._variables, "HOST_ADDRESS": address}.items())
        settings, users, names = (self.folder / f"{address}.{kind}" for kind in ("conf", "passwd", "hosts"))
        settings.write_text(
            f"ListenAddress {address}\nHostKey {self.folder / 'host_key'}\nAuthorizedKeysFile {self.key}.pub\n"
            f"UsePAM no\nStrictModes no\nPidFile none\nPasswordAuthentication no\nSetEnv {told}\n"
        )
        known = Path("/etc/passwd").read_text()
        users.write_text(re.sub(r"(?m)^root:.*$", f"root:x:0:0:root:{self.home(address)}:/bin/bash", known))
        names.write_text(f"127.0.0.1 localhost\n{address} {self._names(address)[0]}\n")
        apart = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        own = {users: "/etc/passwd", names: "/etc/hosts", self.home(address) / "ray": "/tmp/ray"}
        mounts = " && ".join(f"mount --bind {file} {place}" for file, place in own.items())
        sshd = shutil.which("sshd", path=_PATH)
        server = f"hostname {self._names(address)[0]} && {mounts} && exec {sshd} -D -f {settings}"
        command = ["ip", "netns", "exec", self._names(address)[0], *apart, "sh", "-c", server]
        quiet = subprocess.DEVNULL
        self._servers[address] = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        end = time.monotonic() + 30
        while self.run(address, "true").returncode:
            assert time.monotonic() < end, f"{address} does not answer"
            time.sleep(0.1)

    def run(self, address: str, command: str) -> subprocess.CompletedProcess[str]:
        """A command on a host, by ssh."""
        options = ["-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        words = ["ssh", *options, "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", f"root@{address}", command]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True)

    def cut(self, address: str) -> None:
        """Pulls the host's cable: it lives, and nobody hears of it."""
        sh("ip", "link", "set", self._names(address)[1], "down")

    def mend(self, address: str) -> None:
        sh("ip", "link", "set", self._names(address)[1], "up")

    def kill(self, address: str) -> None:
        """The host loses power: its first process, and with it all others, are killed."""
        server = self._servers.pop(address)
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(server.pid).children():
                child.send_signal(signal.SIGKILL)
        server.kill()
        server.wait()

    def close(self) -> None:
        for address in list(self._servers):
            self.kill(address)
        for address in self.addresses:
            sh("ip", "link", "del", self._names(address)[1], check=False)  # its namespace goes later than it is told to
            sh("ip", "netns", "del", self._names(address)[0], check=False)
        sh("ip", "link", "del", self._tag, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
