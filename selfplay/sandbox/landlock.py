"""Landlock: which files a process may read, and that it reaches no network, no socket and no process outside.

A kernel since 5.13 that has it switched on needs no privilege for it. Every process below a domain is hidden from
`ptrace` and all that asks the same question (/proc/PID/mem, /proc/PID/environ). Source: the kernel's
Documentation/userspace-api/landlock.rst; the three calls have the same numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import selfplay
from selfplay.sandbox.libc import LIBC, last_error
from selfplay.sandbox.record import Unconfined

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
#: Rights over files that each version of the interface added, as the number of the first bit after them.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_BIND_AND_CONNECT, _SOCKETS_AND_SIGNALS = 0b11, 0b11

#: What the interpreter, shared libraries, time zones and numpy read, wherever they are installed.
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/usr/share/locale", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Readable:
    """A place that may be read. folder: whether it is one, and all below it may be read too."""

    path: str
    folder: bool


def version() -> int:
    """The version of Landlock's interface that this kernel offers; 0 where it has none or it is switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, int(LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def lay(readable: Iterable[Readable]) -> int:
    """Restricts this process for good to reading what lies below the given paths; the version that holds, 0 if none.

    Paths that do not exist are passed over. To be called after `PR_SET_NO_NEW_PRIVS` is set. Raises `Unconfined` where
    the kernel has Landlock and refuses.
    """
    known = version()
    if known == 0:
        return 0
    files = (1 << max(bit for since, bit in _FILE_RIGHTS.items() if since <= known)) - 1
    fields = [files]
    if known >= 4:
        fields.append(_BIND_AND_CONNECT)
    if known >= 6:
        fields.append(_SOCKETS_AND_SIGNALS)
    described = struct.pack(f"{len(fields)}Q", *fields)
    rules = LIBC.syscall(_CREATE_RULESET, ctypes.c_char_p(described), ctypes.c_size_t(len(described)), 0)
    if rules < 0:
        raise Unconfined(f"Landlock refuses: {last_error()}")
    try:
        for place in readable:
            _allow(rules, place)
        if LIBC.syscall(_RESTRICT_SELF, rules, 0) != 0:
            raise Unconfined(f"Landlock refuses: {last_error()}")
    finally:
        os.close(rules)
    return known


def _allow(rules: int, place: Readable) -> None:
    try:
        opened = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR if place.folder else _READ_FILE, opened)
        LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(opened)


def _installed() -> tuple[str, ...]:
    """Where the interpreter, its libraries, the packages and this one are installed."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    found = [os.path.join(prefix, lib) for prefix in sorted(prefixes) for lib in ("lib", "lib64")]
    found += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(dict.fromkeys([*found, *(str(Path(place)) for place in selfplay.__path__)]))


def _outermost(paths: Iterable[str]) -> tuple[Readable, ...]:
    """The places that exist, links followed, without those that lie below another."""
    found: list[Readable] = []
    for path in sorted({os.path.realpath(path) for path in paths}):
        if not any(path.startswith(f"{one.path}{os.sep}") for one in found if one.folder) and os.path.exists(path):
            found.append(Readable(path, os.path.isdir(path)))
    return tuple(found)


#: Found when the module is imported, so that copies need not look.
_BELOW = _outermost((*_SYSTEM, *_installed()))


def needed() -> tuple[Readable, ...]:
    """What this process may need to read: all that is installed, and the packages loaded from elsewhere.

    Of a package that is loaded from elsewhere, its folder; of a module that is a single file, that file. Not the
    folders they lie in: in a checkout, data and runs lie there too.
    """
    elsewhere = []
    inside = tuple(f"{one.path}{os.sep}" for one in _BELOW)
    for name, module in list(sys.modules.items()):
        if "." in name:
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(inside):
            continue
        try:
            elsewhere += [str(place) for place in module.__path__]
        except (AttributeError, TypeError):
            if isinstance(file, str):
                elsewhere.append(file)
    return (*_BELOW, *_outermost(elsewhere))
