"""The filter of system calls (seccomp): an allow-list in the bytecode of classic BPF, made from `syscalls`.

What is not allowed fails with EPERM ("Operation not permitted"). A thread fails with EAGAIN, which Python reports as
"can't start new thread": threads cannot be counted where a process runs as root, so a judge has the one it began with.
A call of another architecture (32-bit code) kills the process. Source: seccomp(2), and linux/filter.h for the bytecode.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

from selfplay.sandbox.libc import LIBC, last_error
from selfplay.sandbox.record import Unconfined
from selfplay.sandbox.syscalls import ARCHITECTURES, CHECKED, FREE, LAST, UNKNOWN, Architecture

ALLOW, KILL = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
DENY, NO_THREAD, NO_SUCH_CALL = _ERRNO | errno.EPERM, _ERRNO | errno.EAGAIN, _ERRNO | errno.ENOSYS

_LOAD, _EQUAL, _ANY_BIT, _ABOVE, _AND, _RETURN = 0x20, 0x15, 0x45, 0x25, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_PROT_WRITE_EXEC = 2 | 4
_CLONE_THREAD = 0x10000
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: nothing that locks, signals or changes a shared description.
_FCNTL = (0, 1, 2, 3, 1030)
#: TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
#: PR_SET_NAME, PR_GET_NAME.
_PRCTL = (15, 16)
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


def lay() -> str:
    """Filters this process's system calls for good and says for which architecture. Raises `Unconfined`.

    To be called after `PR_SET_NO_NEW_PRIVS` is set.
    """
    here = architecture()
    program = _LAID[here.name]
    code = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    if LIBC.syscall(here.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(described)) != 0:
        raise Unconfined(f"the kernel does not filter system calls: {last_error()}")
    try:
        os.kill(os.getpid(), 0)
    except PermissionError:
        return here.name
    raise Unconfined("the kernel took a filter of system calls and does not apply it")


def architecture() -> Architecture:
    """This machine's. Raises `Unconfined` where there is no filter for it."""
    if sys.platform != "linux":
        raise Unconfined(f"it needs Linux, and this is {platform.system() or sys.platform}")
    here = ARCHITECTURES.get(platform.machine())
    if here is None or sys.maxsize < 2**32 or sys.byteorder != "little":
        raise Unconfined(f"there is a filter for {' and '.join(ARCHITECTURES)}, and this is {platform.machine()}")
    return here


def program(of: Architecture) -> bytes:
    """The filter of an architecture: 8 bytes an instruction."""
    code = [
        *_load(_ARCHITECTURE_AT),
        *_unless(_EQUAL, of.audit, KILL),
        *_load(_NUMBER_AT),
    ]
    number = of.numbers(CHECKED)
    blocks = {
        "open": _only_bits(1, of.open_flags),
        "openat": _only_bits(2, of.open_flags),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
        "mmap": _lacks_some(2, _PROT_WRITE_EXEC),
        "mprotect": _lacks_some(2, _PROT_WRITE_EXEC),
        "sched_getaffinity": _one_of(0, (0,)),
        "prlimit64": _one_of(0, (0,)) + _zero(2),
        "clone": _when_bit(0, _CLONE_THREAD, NO_THREAD) + _return(DENY),
    }
    for name, block in blocks.items():
        if name in number:
            code += _when_called(number[name], block + _return(ALLOW))
    for called in of.numbers(FREE).values():
        code += _when_called(called, _return(ALLOW))
    for called in of.numbers(UNKNOWN).values():
        code += _when_called(called, _return(NO_SUCH_CALL))
    code += [_step(_ABOVE, LAST, 0, 1), *_return(NO_SUCH_CALL), *_return(DENY)]
    return b"".join(code)


def _when_called(number: int, block: list[bytes]) -> list[bytes]:
    return [_step(_EQUAL, number, 0, len(block)), *block]


def _only_bits(argument: int, bits: int) -> list[bytes]:
    """Goes on if the lower half of the argument has no other bits, refuses otherwise."""
    return [*_load(_low(argument)), *_when(_ANY_BIT, ~bits & 0xFFFFFFFF, DENY)]


def _one_of(argument: int, values: tuple[int, ...]) -> list[bytes]:
    """Goes on if the lower half is one of the values, which is all that the kernel reads of an int."""
    jumps = [_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [*_load(_low(argument)), *jumps, *_return(DENY)]


def _lacks_some(argument: int, bits: int) -> list[bytes]:
    """Goes on if not all of the bits are set."""
    return [*_load(_low(argument)), _step(_AND, bits), *_when(_EQUAL, bits, DENY)]


def _zero(argument: int) -> list[bytes]:
    """Goes on if both halves are zero."""
    return [*_load(_low(argument)), *_unless(_EQUAL, 0, DENY), *_load(_low(argument) + 4), *_unless(_EQUAL, 0, DENY)]


def _when_bit(argument: int, bit: int, action: int) -> list[bytes]:
    return [*_load(_low(argument)), *_when(_ANY_BIT, bit, action)]


def _when(test: int, value: int, action: int) -> list[bytes]:
    return [_step(test, value, 0, 1), *_return(action)]


def _unless(test: int, value: int, action: int) -> list[bytes]:
    return [_step(test, value, 1, 0), *_return(action)]


def _low(argument: int) -> int:
    """Where the lower half of an argument lies, on little-endian machines."""
    return _ARGUMENTS_AT + 8 * argument


def _load(offset: int) -> list[bytes]:
    return [_step(_LOAD, offset)]


def _return(action: int) -> list[bytes]:
    return [_step(_RETURN, action)]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


#: Made when the module is imported, so that copies need not make it.
_LAID = {name: program(one) for name, one in ARCHITECTURES.items()}
