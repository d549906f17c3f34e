"""The system calls that a confined process may make, by architecture: an allow-list; whatever is not in it is refused.

It holds what CPython, numpy, sympy and parsers need to import modules, compute, and write to files that are open
already. Numbers are those of Linux's headers, (x86-64, aarch64); None where the architecture lacks the call.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Allowed whatever their arguments are. They change nothing outside the process, except what `write` writes.
FREE: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "preadv": (295, 69), "write": (1, 64),
    "writev": (20, 66), "close": (3, 57), "close_range": (436, 436), "lseek": (8, 62), "stat": (4, None),
    "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "munmap": (11, 215),
    "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98), "sched_yield": (24, 124),
    "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148),
    "getresgid": (120, 150), "uname": (63, 160), "sysinfo": (99, 179), "times": (100, 153), "getrusage": (98, 165),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None), "pause": (34, None), "exit": (60, 93),
    "exit_group": (231, 94), "getrlimit": (97, 163),
}  # fmt: skip
#: Allowed for some arguments; `seccomp` says which.
CHECKED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "fcntl": (72, 25), "ioctl": (16, 29), "mmap": (9, 222),
    "mprotect": (10, 226), "prctl": (157, 167), "prlimit64": (302, 261), "sched_getaffinity": (204, 123),
    "clone": (56, 220),
}  # fmt: skip
#: Answered with ENOSYS ("no such call"), so that the C library takes an older call, whose arguments a filter can read.
UNKNOWN: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435), "openat2": (437, 437), "rseq": (334, 293),
}  # fmt: skip
#: The last call of Linux 6.18, `file_setattr`. What is newer is answered with ENOSYS, too: libraries then fall back.
LAST = 469

_NONBLOCK, _NOCTTY, _CLOEXEC = 0o4000, 0o400, 0o2000000


@dataclass(frozen=True)
class Architecture:
    """What of Linux's interface differs between processors.

    name: as `platform.machine` says it. audit: its AUDIT_ARCH number. column: in the tables above.
    open_flags: the bits of `open`'s flags that neither write nor make a file. seccomp: the number of that call.
    """

    name: str
    audit: int
    column: int
    open_flags: int
    seccomp: int

    def numbers(self, table: dict[str, tuple[int | None, int | None]]) -> dict[str, int]:
        """Name -> number of the calls of a table that this architecture has."""
        return {name: number for name, row in table.items() if (number := row[self.column]) is not None}


# Besides the three above: O_DIRECTORY, O_NOFOLLOW and O_LARGEFILE, whose bits differ.
X86_64 = Architecture(
    "x86_64", 0xC000003E, 0, _NONBLOCK | _NOCTTY | _CLOEXEC | 0o200000 | 0o400000 | 0o100000, seccomp=317
)
AARCH64 = Architecture(
    "aarch64", 0xC00000B7, 1, _NONBLOCK | _NOCTTY | _CLOEXEC | 0o40000 | 0o100000 | 0o400000, seccomp=277
)
ARCHITECTURES = {one.name: one for one in (X86_64, AARCH64)}
