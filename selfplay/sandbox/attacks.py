"""What a confined process must not be able to do, as code that tries: the self-test of a machine's confinement.

Each attack is run in a confined process of its own, against a victim that was started for it. It raises `OSError` (or
what Python makes of one) where it is refused, and returns where it is not. `probe` runs them all for
`selfplay doctor`; the tests run them one by one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Victim:
    """What an attack is aimed at.

    pid: a process of the same user, as the attacker sees it, 0 if it cannot see it. server: the process that forked the
    attacker. folder: a folder of the user that holds a file "kept". pipe: the descriptor that the attacker writes to.
    """

    pid: int
    server: int
    folder: str
    pipe: int

    @property
    def file(self) -> str:
        return os.path.join(self.folder, "kept")


#: Calls by number, (x86-64, aarch64), that Python has no function for.
_NUMBERS = {
    "sched_setattr": (314, 274),
    "setxattrat": (463, 463),
    "file_setattr": (469, 469),
    "mq_open": (240, 180),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "fanotify_init": (300, 262),
    "inotify_init1": (294, 26),
    "clock_adjtime": (305, 266),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "clone": (56, 220),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "rt_tgsigqueueinfo": (297, 240),
    "timer_create": (222, 107),
}


def call(name: str, *arguments: Any) -> int:
    """Makes a system call as it is. Raises `OSError`."""
    number = _NUMBERS[name][platform.machine() == "aarch64"]
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    words += [ctypes.c_long(0)] * (6 - len(words))
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _read(path: str) -> None:
    with open(path, "rb") as file:
        if not file.read(64):
            raise OSError(f"{path} is empty")


def _signal_by_owner(victim: Victim) -> None:
    fcntl.fcntl(victim.pipe, fcntl.F_SETOWN, victim.pid or victim.server)


def _signal_by_choice(victim: Victim) -> None:
    fcntl.fcntl(victim.pipe, fcntl.F_SETSIG, signal.SIGKILL)


def _asynchronous(victim: Victim) -> None:
    fcntl.fcntl(victim.pipe, fcntl.F_SETFL, fcntl.fcntl(victim.pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _lock(victim: Victim) -> None:
    fcntl.flock(victim.pipe, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_record(victim: Victim) -> None:
    fcntl.lockf(victim.pipe, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(victim: Victim) -> None:
    with open(os.path.join(victim.folder, "made"), "w"):
        pass


def _two_forks(victim: Victim) -> None:
    if os.fork() == 0:
        os._exit(0)


def _many_threads(victim: Victim) -> None:
    threading.Thread(target=time.sleep, args=(0.01,)).start()


def _send_tcp(victim: Victim) -> None:
    socket.create_connection(("127.0.0.1", 9), 0.1)


def _write_and_execute(victim: Victim) -> None:
    import mmap

    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def _new_limit(victim: Victim) -> None:
    call("prlimit64", victim.pid or victim.server, resource.RLIMIT_NOFILE, struct.pack("QQ", 3, 3), None)


def _raise_limit(victim: Victim) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))


def _outlive(victim: Victim) -> None:
    call("prctl", 1, 0)


#: What is tried -> the code that tries it.
ATTACKS: dict[str, Callable[[Victim], object]] = {
    "signal a process by F_SETOWN": _signal_by_owner,
    "choose the signal by F_SETSIG": _signal_by_choice,
    "ask for signals by O_ASYNC": _asynchronous,
    "kill a process": lambda victim: os.kill(victim.pid or victim.server, signal.SIGKILL),
    "kill the server": lambda victim: os.kill(victim.server, signal.SIGKILL),
    "kill the process group": lambda victim: os.killpg(0, signal.SIGKILL),
    "queue a signal": lambda victim: call("rt_tgsigqueueinfo", victim.server, victim.server, 9, b"\0" * 128),
    "lower a process's limits": _new_limit,
    "read a process's limits": lambda victim: resource.prlimit(victim.pid or victim.server, resource.RLIMIT_NOFILE),
    "change its own limits": _raise_limit,
    "change a process's scheduling": lambda victim: call(
        "sched_setattr", victim.pid, struct.pack("6Q", 48, 5, *[0] * 4)
    ),
    "change a process's priority": lambda victim: os.setpriority(os.PRIO_PROCESS, victim.pid, 19),
    "pin a process to a core": lambda victim: os.sched_setaffinity(victim.pid, {0}),
    "read a process's environment": lambda victim: _read(f"/proc/{victim.pid or 1}/environ"),
    "read a process's memory": lambda victim: open(f"/proc/{victim.pid or 1}/mem", "rb"),
    "read a process's command line": lambda victim: _read(f"/proc/{victim.pid or 1}/cmdline"),
    "list a process's open files": lambda victim: os.listdir(f"/proc/{victim.pid or 1}/fd"),
    "open the server's pipes": lambda victim: open(f"/proc/{victim.server}/fd/0", "rb"),
    "read the server's memory": lambda victim: open(f"/proc/{victim.server}/mem", "rb"),
    "read the server's environment": lambda victim: _read(f"/proc/{victim.server}/environ"),
    "trace a process": lambda victim: call("ptrace", 16, victim.pid or victim.server),
    "copy a process's memory": lambda victim: call("process_vm_readv", victim.server, None, 0, None, 0, 0),
    "hold a process": lambda victim: call("pidfd_open", victim.server, 0),
    "take a process's file": lambda victim: call("pidfd_getfd", 0, 0, 0),
    "compare processes": lambda victim: call("kcmp", os.getpid(), victim.server, 2),
    "write a file": _write,
    "truncate a file": lambda victim: os.truncate(victim.file, 0),
    "remove a file": lambda victim: os.unlink(victim.file),
    "rename a file": lambda victim: os.rename(victim.file, victim.file + "2"),
    "link a file": lambda victim: os.link(victim.file, victim.file + "2"),
    "change a file's mode": lambda victim: os.chmod(victim.file, 0),
    "change a file's time": lambda victim: os.utime(victim.file),
    "set an attribute by setxattr": lambda victim: os.setxattr(victim.file, "user.x", b"x"),
    "set an attribute by setxattrat": lambda victim: call(
        "setxattrat", -100, victim.file.encode(), 0, b"user.x", None, 0
    ),
    "set flags by file_setattr": lambda victim: call("file_setattr", -100, victim.file.encode(), b"\0" * 24, 24, 0),
    "set flags by ioctl": lambda victim: fcntl.ioctl(0, 0x40086602, struct.pack("l", 0x40)),
    "type into a terminal": lambda victim: fcntl.ioctl(0, 0x5412, b"x"),
    "read a file of the user": lambda victim: _read(victim.file),
    "read the list of users": lambda victim: _read("/etc/passwd"),
    "list a folder of the user": lambda victim: os.listdir(victim.folder),
    "list processes": lambda victim: os.listdir("/proc"),
    "lock a file": _lock,
    "lock a record": _lock_record,
    "make a message queue": lambda victim: call("mq_open", b"selfplay_probe", os.O_CREAT | os.O_RDWR, 0o600, None),
    "make shared memory": lambda victim: call("shmget", 0, 4096, 0o1600),
    "make a semaphore": lambda victim: call("semget", 0, 1, 0o1600),
    "make a System V queue": lambda victim: call("msgget", 0, 0o1600),
    "make a file in memory": lambda victim: call("memfd_create", b"x", 0),
    "watch files by fanotify": lambda victim: call("fanotify_init", 0, 0),
    "watch files by inotify": lambda victim: call("inotify_init1", 0),
    "read or set the clock's rate": lambda victim: call("clock_adjtime", 0, b"\0" * 256),
    "use io_uring": lambda victim: call("io_uring_setup", 1, b"\0" * 120),
    "handle page faults": lambda victim: call("userfaultfd", 1),
    "load kernel code": lambda victim: call("bpf", 0, b"\0" * 64, 64),
    "measure by perf": lambda victim: call("perf_event_open", b"\0" * 128, 0, -1, -1, 0),
    "use the kernel's keys": lambda victim: call("keyctl", 0, -3, 1),
    "make a timer that signals": lambda victim: call("timer_create", 0, None, b"\0" * 8),
    "leave its session": lambda victim: os.setsid(),
    "leave its process group": lambda victim: os.setpgid(0, 0),
    "outlive its server": _outlive,
    "fork": _two_forks,
    "clone without a thread": lambda victim: call("clone", int(signal.SIGCHLD)),
    "start a thread": _many_threads,
    "run a program": lambda victim: os.execv("/bin/true", ["true"]),
    "enter a new namespace": lambda victim: call("unshare", 0x10000000),
    "enter a namespace": lambda victim: call("setns", 0, 0),
    "mount": lambda victim: call("mount", b"none", b"/", None, 0x44000, None),
    "move a mount": lambda victim: call("move_mount", -1, b"", -1, b"", 0),
    "open a file by handle": lambda victim: call("open_by_handle_at", -100, b"\0" * 16, 0),
    "change its root": lambda victim: os.chroot("/"),
    "change its personality": lambda victim: call("personality", 0),
    "become another user": lambda victim: os.setuid(os.getuid()),
    "open a socket": lambda victim: socket.socket(),
    "open a pair of sockets": lambda victim: socket.socketpair(),
    "connect": _send_tcp,
    "open a pipe": lambda victim: os.pipe(),
    "make memory that is written and run": _write_and_execute,
    "lay another filter": lambda victim: call("seccomp", 1, 0, None),
}
