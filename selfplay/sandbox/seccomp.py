"""What a process that judges an answer may no longer do: no file but to read, no process, no network, little memory.

The limits hold everywhere. On Linux on x86-64 a filter of system calls (seccomp, no root needed) is laid over them: to
start a program or a process, to open a file for writing or to make, move or remove one, to reach the network, to signal
or look into another process, and to change what the filter rests on, all fail with "not permitted". Reading stays
allowed, because verifiers import what they need when they first need it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

from selfplay.sandbox.record import Unconfined

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 22, 4, 38
_X86_64 = 0xC000003E
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_THREAD = 0x10000
_ALLOW, _NOT_PERMITTED, _NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026

#: System calls of x86-64 that fail with EPERM.
_DENIED = {
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
    "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440,
    "socket": 41, "socketpair": 53, "connect": 42, "bind": 49, "sendto": 44, "sendmsg": 46,
    "creat": 85, "truncate": 76, "ftruncate": 77, "fallocate": 285, "mknod": 133, "mknodat": 259,
    "unlink": 87, "unlinkat": 263, "rmdir": 84, "mkdir": 83, "mkdirat": 258,
    "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
    "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "move_mount": 429, "fsopen": 430, "open_tree": 428,
    "unshare": 272, "setns": 308, "setrlimit": 160, "setpriority": 141, "ioprio_set": 251,
    "sched_setaffinity": 203, "sched_setscheduler": 144,
    "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "setresuid": 117, "setresgid": 119, "capset": 126,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249,
    "open_by_handle_at": 304, "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
    "reboot": 169, "swapon": 167, "swapoff": 168, "sethostname": 170, "setdomainname": 171, "syslog": 103,
    "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "shmget": 29, "msgget": 68, "semget": 64,
}  # fmt: skip
#: That fail with ENOSYS, so that the C library takes the older call instead, which the filter can read.
_UNKNOWN = {"clone3": 435, "openat2": 437, "io_uring_setup": 425}
_CLONE, _OPEN, _OPENAT = 56, 2, 257
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06


def lay() -> str:
    """Filters this process's system calls for good; the architecture. Raises `Unconfined`."""
    if not filters():
        raise Unconfined(f"there is no filter of system calls for {sys.platform} on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    described = struct.pack("HxxxxxxQ", length, ctypes.addressof(code))
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Unconfined("the kernel does not give up new privileges")
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(described), 0, 0) != 0:
        raise Unconfined("the kernel does not filter system calls")
    return platform.machine()


def filters() -> bool:
    """Whether this machine is one for which the filter is written."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def _program() -> bytes:
    """The filter, in the bytecode of classic BPF: 8 bytes an instruction."""
    code = [
        _step(_LOAD, 4),  # the architecture
        _step(_EQUAL, _X86_64, 1, 0),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_LOAD, 0),  # the number of the call
        _step(_AT_LEAST, 0x40000000, 0, 1),  # the x32 calls
        _step(_RETURN, _NOT_PERMITTED),
    ]
    for number in _DENIED.values():
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _NOT_PERMITTED)]
    for number in _UNKNOWN.values():
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _NO_SUCH_CALL)]
    for number, argument, bits, then, otherwise in (
        (_CLONE, 0, _THREAD, _ALLOW, _NOT_PERMITTED),
        (_OPEN, 1, _WRITES, _NOT_PERMITTED, _ALLOW),
        (_OPENAT, 2, _WRITES, _NOT_PERMITTED, _ALLOW),
    ):
        code += [
            _step(_EQUAL, number, 0, 4),
            _step(_LOAD, 16 + 8 * argument),
            _step(_ANY_BIT, bits, 0, 1),
            _step(_RETURN, then),
            _step(_RETURN, otherwise),
        ]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)
