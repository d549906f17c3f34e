"""`selfplay doctor`: whether the installation and the machine are fit, a line each."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from selfplay import machine
from selfplay.cli.console import Console
from selfplay.cli.doctor_sandbox import sandbox
from selfplay.cli.findings import Finding, Level
from selfplay.errors import UserError
from selfplay.extras import how_to_install

BASE = (
    "numpy", "pyarrow", "deltalake", "obstore", "duckdb", "open_spiel", "pydantic", "typer", "rich", "cryptography",
)  # fmt: skip
FACTORY = ("ray", "torch", "numba", "safetensors", "gymnasium", "wandb", "tensorboard", "psutil")
MARKS = {"ok": "[green3]✓[/]", "note": "[yellow3]·[/]", "bad": "[red3]✗[/]"}


def doctor(
    out: Annotated[str, typer.Option(help="The folder runs would be written to.")] = "runs",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Every node of a Ray cluster instead, from within; --out must be shared.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="The cluster's. [env var: RAY_ADDRESS]")] = None,
    launch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A cluster file instead: will `ray up FILE` work from here?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation and the machine, or a cluster. Exit code 1 where something will not work.

    Examples:  selfplay doctor  ·  selfplay doctor --launch cluster.yaml
    ·  selfplay doctor --cluster --address auto --out s3://bucket
    """
    if cluster and launch:
        raise UserError("--launch looks at a file before the cluster is there, --cluster at the cluster; give one")
    if launch:
        from selfplay.cli import doctor_launch
        from selfplay.cli.run import need_packages

        need_packages("ray", "yaml", "jsonschema")
        findings = list(doctor_launch.examine(launch))
    elif cluster:
        from selfplay.cli import doctor_cluster

        shared = out if "://" in out else None
        findings = list(doctor_cluster.nodes(doctor_cluster.address_of(address), shared))
    else:
        findings = [finding for check in checks(out) for finding in check()]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table.grid(padding=(0, 2, 0, 0))
        for finding in findings:
            table.add_row(MARKS[finding.level], f"[bold]{finding.subject}[/]", escape(finding.text))
        Console(highlight=False).print(table)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)


def checks(out: str) -> list[Callable[[], Iterator[Finding]]]:
    return [python, packages, siblings, environments, processor, memory, graphics, sandbox, home, lambda: folder(out)]


def python() -> Iterator[Finding]:
    fit = sys.version_info >= (3, 11)
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok" if fit else "bad", f"{version} in {sys.prefix}" + ("" if fit else "; 3.11 is needed"))


def packages() -> Iterator[Finding]:
    """Versions of what is installed; the factory's packages may be absent from a reader's machine."""
    levels: dict[str, Level] = {"base": "bad", "factory": "note"}
    for title, names in (("base", BASE), ("factory", FACTORY)):
        have, lack = [], []
        for name in names:
            try:
                have.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                lack.append(name)
        yield Finding(f"{title} packages", "ok", ", ".join(have) or "none")
        if lack:
            advice = how_to_install("factory") if title == "factory" else "install again"
            yield Finding(f"{title} packages", levels[title], f"absent: {', '.join(lack)}; {advice}")


def siblings() -> Iterator[Finding]:
    """`envs` and `trainers` are names of other people's packages too: are these ours?"""
    homes = {name: _home(name) for name in ("selfplay", "envs", "trainers")}
    ours = homes["selfplay"]
    for name in ("envs", "trainers"):
        if homes[name] is None:
            yield Finding("packages", "bad", f"{name} is not installed; install selfplay-factory again")
        elif homes[name] != ours:
            yield Finding(
                "packages",
                "bad",
                f"{name} comes from {homes[name]}, selfplay from {ours}: another distribution named {name} hides ours; "
                f"uninstall it and install selfplay-factory again",
            )
    if len(set(homes.values())) == 1:
        yield Finding("packages", "ok", f"selfplay, envs and trainers lie side by side in {ours}")


def _home(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve().parent


def environments() -> Iterator[Finding]:
    from selfplay.environments import registry

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = registry.all_specs()
    yield Finding("environments", "ok" if found else "bad", f"{len(found)} found")
    for warning in caught:
        yield Finding("environments", "note", str(warning.message))


def processor() -> Iterator[Finding]:
    cores = machine.cores()
    flags = set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
                break
    except OSError:
        pass
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    bf16 = "bfloat16 in hardware" if {"avx512_bf16", "amx_bf16"} & flags else "no bfloat16: nets run in float32"
    yield Finding("processor", "ok", f"{cores} cores, {', '.join(fast) or 'vector units unknown'}; {bf16}")


def home() -> Iterator[Finding]:
    """Ray keeps files in the home directory, and ends where it cannot."""
    place = Path(os.path.expanduser("~"))
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or "it cannot be used"
        text = f"{place} cannot be written ({reason}), and Ray needs it; set HOME to a folder that can"
        yield Finding("home", "bad", text)
    else:
        yield Finding("home", "ok", f"{place} can be written")


def memory() -> Iterator[Finding]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return
    hint = "" if total >= 6 else "; a run at its defaults may take 6"
    yield Finding("memory", "note" if hint else "ok", f"{total:.1f} GiB{hint}")
    if Path("/dev/shm").is_dir():
        shared = shutil.disk_usage("/dev/shm").free / 2**30
        hint = "" if shared >= 1 else "; Ray will use the disk instead"
        yield Finding("shared memory", "note" if hint else "ok", f"{shared:.1f} GiB free in /dev/shm{hint}")


def graphics() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("GPU", "ok", ", ".join(names))
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Finding("GPU", "note", "this machine has one, but torch is the CPU build")
    else:
        yield Finding("GPU", "ok", "none; nets run on the processor")


def folder(out: str) -> Iterator[Finding]:
    """Whether runs can be written where they would go."""
    if "://" in out:
        from selfplay.io import storage

        probe = storage.join(out, "doctor-probe")
        storage.write(probe, b"probe")
        storage.delete(probe)
        yield Finding("runs", "ok", f"{out} can be written")
        return
    place = Path(out).resolve()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("runs", "bad", f"{place} cannot be written: {error.strerror}")
        return
    free = shutil.disk_usage(place).free / 2**30
    yield Finding("runs", "ok" if free >= 2 else "note", f"{place} can be written, {free:.1f} GiB free")
