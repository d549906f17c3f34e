"""Namespaces of its own for the process that forks copies: when it dies, the kernel kills everything in them.

A new pid namespace begins with the next child. So the process that asks for one forks once: the child is the
namespace's init and carries on as the server; the parent stays outside, only waits for the child, and ends as it did.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

from selfplay.sandbox import limits
from selfplay.sandbox.libc import LIBC, close_from, last_error
from selfplay.sandbox.record import Namespaces

_NEW = {"user": 0x10000000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000, "mount": 0x00020000}
#: Tried in this order; `unshare` gives all of a set or none.
_SETS = (("user", "pid", "net", "ipc", "mount"), ("user", "pid", "ipc", "mount"), ("user", "pid"), ("user",))
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36


class _Server:
    """What copies inherit from the server that forks them."""

    namespaces = Namespaces(missing="the server did not ask for any")
    #: The server's pid as its children see it; 0 before it is known.
    pid = 0


def current() -> Namespaces:
    """What `enter_namespaces` got in this process or the one that forked it."""
    return _Server.namespaces


def server_pid() -> int:
    """The pid of the process that called `enter_namespaces`, as it sees itself; 0 if none did."""
    return _Server.pid


def enter_namespaces() -> Namespaces:
    """Moves this process into namespaces of its own and says which it got; to be called once, before it forks copies.

    Must be called from the only thread of the process, before anything is read from its pipes. Returns in the process
    that is to go on: a child where there is a pid namespace, and the caller itself where there is none. The child's
    death kills all its descendants; killing the caller kills the child. Copies may start no thread, so numeric
    libraries that are loaded from now on are told to use one.
    """
    limits.one_thread()
    got = Namespaces(missing="namespaces are a feature of Linux")
    if sys.platform == "linux":
        got = _enter()
        LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # copies may not look into the server
        LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _Server.namespaces, _Server.pid = got, os.getpid()
    return got


def _enter() -> Namespaces:
    user, group = os.geteuid(), os.getegid()
    maps = {kind: Path(f"/proc/self/{kind}_map").read_text() for kind in ("uid", "gid")}
    missing = ""
    with _outside() as write_maps:
        for names in _SETS:
            if LIBC.unshare(sum(_NEW[name] for name in names)) == 0:
                break
            missing = missing or last_error()
        else:
            return Namespaces(missing=f"the kernel refuses user namespaces: {missing}")
        if not (user == 0 and write_maps(_identity(maps["uid"]), _identity(maps["gid"]))):
            with contextlib.suppress(OSError):  # where AppArmor refuses, ids stay unmapped, and files as readable
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
                Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    own_proc = False
    if "pid" in names:
        _go_on_in_child()
        own_proc = "mount" in names and _mount_proc()
    lacking = [name for name in _NEW if name not in names]
    return Namespaces(
        **{name: name in names for name in _NEW},
        own_proc=own_proc,
        missing=f"no {', '.join(lacking)} namespace: {missing}" if lacking else "",
    )


class _outside:
    """A helper process that stays in the present user namespace and can write the maps of one below it.

    Only a process outside may map more than one user. A server that runs as root needs all of them mapped, or it could
    no longer read files of other users that it could read before.
    """

    def __enter__(self) -> _outside:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._asks, self._answers):
            os.close(end)
        os.waitpid(self._helper, 0)

    def __init__(self) -> None:
        server = os.getpid()
        asked, self._asks = os.pipe()
        self._answers, answer = os.pipe()
        self._helper = os.fork()
        if self._helper == 0:
            try:
                os.close(self._asks)
                os.close(self._answers)
                text = b""
                while part := os.read(asked, 65536):
                    text += part
                    if text.endswith(b"\0"):
                        for name, content in zip(("uid", "gid"), text[:-1].decode().split("\0"), strict=True):
                            Path(f"/proc/{server}/{name}_map").write_text(content)
                        os.write(answer, b"1")
                        break
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answer)

    def __call__(self, users: str, groups: str) -> bool:
        """Writes both maps; whether it could."""
        os.write(self._asks, f"{users}\0{groups}\0".encode())
        return os.read(self._answers, 1) == b"1"


def _identity(present: str) -> str:
    """The map in which all ids that the present map knows stay as they are."""
    rows = (line.split() for line in present.splitlines())
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in rows)


def _go_on_in_child() -> None:
    """Forks; the child returns, and is killed when the parent dies; the parent waits for it and ends as it did."""
    alive, kept = os.pipe()  # the parent holds one end open as long as it lives
    child = os.fork()
    if child == 0:
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(kept)
        if select.select([alive], [], [], 0)[0]:  # it died before it was waited for
            os._exit(70)
        os.close(alive)
        return
    _end_like(child, kept)


def _end_like(child: int, kept: int) -> NoReturn:
    """Waits for the child and ends with its exit status or signal; holds no file open but the one named."""
    try:
        os.closerange(0, kept)
        close_from(kept + 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status < 0:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(status)
    finally:
        os._exit(70)


def _mount_proc() -> bool:
    """Mounts a /proc that shows this pid namespace only; whether the kernel allowed it."""
    if LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    return bool(LIBC.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None) == 0)
