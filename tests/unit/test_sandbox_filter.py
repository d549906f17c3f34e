"""The filters of both architectures, run by an interpreter of their bytecode, and the tables they are made of."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from selfplay.sandbox import seccomp
from selfplay.sandbox.seccomp import ALLOW, DENY, KILL, NO_SUCH_CALL, NO_THREAD
from selfplay.sandbox.syscalls import AARCH64, ARCHITECTURES, CHECKED, FREE, UNKNOWN, X86_64, Architecture

both = pytest.mark.parametrize("of", [X86_64, AARCH64], ids=lambda of: of.name)


def evaluate(program: bytes, audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel's machine for classic BPF returns for a call."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *[one & 2**64 - 1 for one in (*arguments, *[0] * 6)][:6])
    at, word = 0, 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("<I", data, value)
            case 0x54:
                word &= value
            case 0x15:
                at += if_true if word == value else if_false
            case 0x45:
                at += if_true if word & value else if_false
            case 0x25:
                at += if_true if word > value else if_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


def said(of: Architecture, name: str, *arguments: int) -> int:
    (number,) = (of.numbers(table)[name] for table in (FREE, CHECKED, UNKNOWN) if name in of.numbers(table))
    return evaluate(seccomp.program(of), of.audit, number, arguments)


@both
def test_every_number_is_answered_and_only_the_tables_are_allowed(of: Architecture) -> None:
    program = seccomp.program(of)
    free, checked, unknown = (set(of.numbers(table).values()) for table in (FREE, CHECKED, UNKNOWN))
    assert len(free) + len(checked) + len(unknown) == sum(len(of.numbers(one)) for one in (FREE, CHECKED, UNKNOWN))
    for number in range(1024):
        got = evaluate(program, of.audit, number)
        if number in free:
            assert got == ALLOW
        elif number in unknown or number > 469:
            assert got == NO_SUCH_CALL
        elif number not in checked:
            assert got == DENY, number
    assert evaluate(program, of.audit, 0x40000000) == NO_SUCH_CALL  # the first of x32
    other = X86_64 if of is AARCH64 else AARCH64
    assert {evaluate(program, audit, 1) for audit in (other.audit, 0x40000003, 0x40000028, 0)} == {KILL}


@both
def test_arguments_are_checked(of: Architecture) -> None:
    cloexec, tmpfile, path = os.O_CLOEXEC, 0o20000000, 0o10000000
    assert said(of, "openat", -100, 0, cloexec) == said(of, "openat", -100, 0, of.open_flags) == ALLOW
    for flags in (1, 2, 3, 0o100, 0o1000, 0o2000, tmpfile, path, 0o20000, cloexec | 1):
        assert said(of, "openat", -100, 0, flags) == DENY, oct(flags)
    assert {said(of, "fcntl", 3, command) for command in (0, 1, 2, 3, 1030)} == {ALLOW}
    assert {said(of, "fcntl", 3, command) for command in (4, 5, 6, 7, 8, 10, 15, 36, 37, 1024, 1031, 1033)} == {DENY}
    assert {said(of, "ioctl", 0, command) for command in (0x5401, 0x541B)} == {ALLOW}
    assert {said(of, "ioctl", 0, command) for command in (0x5412, 0x40086602, 0x5452, 0)} == {DENY}
    assert said(of, "prlimit64", 0, 7, 0, 1) == ALLOW
    assert {said(of, "prlimit64", *one) for one in ((7, 7, 0, 1), (0, 7, 1, 0), (0, 7, 1 << 32, 0))} == {DENY}
    assert {said(of, "mmap", 0, 0, prot) for prot in (0, 1, 3, 5)} == {ALLOW}
    assert said(of, "mmap", 0, 0, 6) == said(of, "mmap", 0, 0, 7) == said(of, "mprotect", 0, 0, 7) == DENY
    assert said(of, "prctl", 15) == ALLOW and {said(of, "prctl", one) for one in (1, 4, 22, 38, 0x59616D61)} == {DENY}
    assert said(of, "sched_getaffinity", 0) == ALLOW and said(of, "sched_getaffinity", 1) == DENY
    assert said(of, "clone", 17) == DENY and said(of, "clone", 0x3D0F00) == NO_THREAD
    assert said(of, "clone3", 0, 88) == NO_SUCH_CALL


def test_a_refusal_is_eperm() -> None:
    assert (DENY & 0xFFFF, NO_THREAD & 0xFFFF, NO_SUCH_CALL & 0xFFFF) == (errno.EPERM, errno.EAGAIN, errno.ENOSYS)


@pytest.mark.parametrize(
    ("column", "header", "defines"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", ""),
        (1, "/usr/include/asm-generic/unistd.h", "#define __ARCH_WANT_NEW_STAT\n#define __ARCH_WANT_SET_GET_RLIMIT\n"),
    ],
)
def test_the_tables_are_those_of_the_kernels_headers(column: int, header: str, defines: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    source = f'{defines}#define __ARCH_WANT_SYS_CLONE3\n#include "{header}"\n'
    try:
        text = subprocess.run(["cc", "-E", "-dM", "-"], input=source, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("there is no preprocessor")
    defined = dict(re.findall(r"#define (__NR\w*) (\S+)", text))
    for table in (FREE, CHECKED, UNKNOWN):
        for name, row in table.items():
            number = row[column]
            found = defined.get(f"__NR_{name}")
            found = defined.get(found, found) if found else None
            assert (None if found is None else int(found)) == number, name


def test_there_is_a_filter_for_two_architectures() -> None:
    assert set(ARCHITECTURES) == {"x86_64", "aarch64"}
    assert all(len(seccomp.program(one)) // 8 < 4096 for one in ARCHITECTURES.values())
