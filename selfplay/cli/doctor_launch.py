"""`selfplay doctor --launch FILE`: whether `ray up FILE` is going to work from here, before it is tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfplay.cli.findings import Finding
from selfplay.errors import UserError
from selfplay.extras import how_to_install

_ANSWER_S = 60.0
_PLACEHOLDER = "YOUR-PROJECT"
#: Users and addresses; what begins with a dash, ssh would take for an option.
_SSH_NAME = re.compile(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%\]-]*")


def examine(file: Path) -> Iterator[Finding]:
    """Raises `UserError` where the file cannot be read. What Ray's launcher would refuse is told first, and alone."""
    text, config = read(file)
    misfit = unfit(config)
    if misfit:
        yield Finding("file", "bad", f"{file} is no cluster file of Ray's launcher: {misfit}")
        return
    yield Finding("file", "ok", f"{file} is what Ray's launcher takes")
    yield from versions(text, Path.cwd() / "constraints.txt")
    yield from token()
    yield from mounts(config)
    yield from key(config)
    provider = config["provider"]["type"]
    if provider == "local":
        yield from machines(config)
    elif provider == "aws":
        yield from amazon()
    elif provider == "gcp":
        yield from google(text)
    if not os.environ.get("RUNS"):
        yield Finding("runs", "note", "RUNS is not set: choose where runs go, such as export RUNS=s3://my-bucket/runs")


def read(file: Path) -> tuple[str, dict[str, Any]]:
    """The file's text, and what it says."""
    import yaml

    try:
        text = file.read_text()
        config = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} must hold settings, such as `cluster_name: selfplay`")
    return text, config


def unfit(config: dict[str, Any]) -> str:
    """Why Ray's launcher would refuse it; empty where it would not."""
    import jsonschema

    if config.get("kind") == "RayCluster":
        return "it is a manifest for Kubernetes; `kubectl apply -f` takes it"
    home = find_spec("ray.autoscaler")
    assert home is not None and home.origin is not None
    schema = json.loads(Path(home.origin).with_name("ray-schema.json").read_text())
    error = next(iter(jsonschema.Draft202012Validator(schema).iter_errors(config)), None)
    if error is not None:
        return f"{'.'.join(map(str, error.absolute_path)) or 'as a whole'}: {error.message[:200]}"
    return "" if config.get("provider", {}).get("type") else "provider.type is missing"


def versions(text: str, constraints: Path) -> Iterator[Finding]:
    """Is the Ray that it names the one that is installed here?"""
    here = metadata.version("ray")
    there = {f"the image ray:{tag}": tag.split("-")[0] for tag in re.findall(r"rayproject/ray\S*?:([\w.-]+)", text)}
    if "constraints.txt" in text:
        if not constraints.exists():
            yield Finding("ray", "bad", f"{constraints} is missing; launch from the project's root")
            return
        pinned = re.search(r"^ray==(\S+)", constraints.read_text(), re.MULTILINE)
        there["constraints.txt"] = pinned[1] if pinned else "any"
    other = [f"{who} has {version}" for who, version in there.items() if version != here]
    if other:
        yield Finding("ray", "bad", f"{here} is installed here, but {', '.join(other)}; they must be the same")
    else:
        yield Finding("ray", "ok", f"{here}, here and there")


def token() -> Iterator[Finding]:
    """Whoever speaks to the cluster needs it."""
    place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not place.is_file() or not place.stat().st_size:
        yield Finding("token", "bad", f"there is none at {place}; run `ray get-auth-token --generate`")
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        yield Finding("token", "note", f"{place} is not used from here: export RAY_AUTH_MODE=token")
    else:
        yield Finding("token", "ok", str(place))


def mounts(config: dict[str, Any]) -> Iterator[Finding]:
    """What is copied to the nodes must be here."""
    for there, here in (config.get("file_mounts") or {}).items():
        if not Path(here).expanduser().exists():
            yield Finding("files", "bad", f"{here} is to be copied to {there}, and is not here")


def key(config: dict[str, Any]) -> Iterator[Finding]:
    """The private key that the file names, if it names one."""
    named = config["auth"].get("ssh_private_key") if config.get("auth") else None
    if not named:
        return
    place = Path(named).expanduser()
    if not place.is_file():
        yield Finding("key", "bad", f"{place} is missing; auth.ssh_private_key names it")
    elif place.stat().st_mode & 0o077:
        yield Finding("key", "bad", f"others may read {place}, and ssh refuses such a key; chmod 600 {place}")
    else:
        yield Finding("key", "ok", str(place))


def machines(config: dict[str, Any]) -> Iterator[Finding]:
    """Machines of one's own: does each answer, and has it what the launcher needs?"""
    absent = [tool for tool in ("ssh", "rsync") if not shutil.which(tool)]
    if absent:
        yield Finding("tools", "bad", f"{' and '.join(absent)} must be installed here")
    provider = config["provider"]
    if not provider.get("head_ip"):
        if not provider.get("coordinator_address"):
            yield Finding("file", "bad", "provider.head_ip is missing: the address of the machine that leads")
        return
    if "ssh" in absent:
        return
    addresses = [provider["head_ip"], *(provider.get("worker_ips") or [])]
    python = re.search(r"\bpython3\.\d+", " ".join(map(str, config.get("setup_commands") or ())))
    auth, needed = config.get("auth") or {}, python[0] if python else ""
    with ThreadPoolExecutor(32) as pool:
        yield from pool.map(lambda address: machine(address, auth, needed), addresses)


def machine(address: str, auth: dict[str, Any], python: str) -> Finding:
    """One machine. python: a program that it must have, with venv; empty: none.

    The file may be a stranger's, and a check runs nothing of it: no proxy command, and no option of ssh in a name.
    """
    user = auth.get("ssh_user", "root")
    for what, name in (("auth.ssh_user", user), ("address", address)):
        if not _SSH_NAME.fullmatch(str(name)):
            return Finding(address, "bad", f"{what} {str(name)!r:.60} is not a name that ssh takes")
    if auth.get("ssh_proxy_command"):
        return Finding(
            address,
            "note",
            "not asked: auth.ssh_proxy_command is a program, which `ray up` runs and this check does not",
        )
    options = ["BatchMode=yes", "ConnectTimeout=5", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options += ["LogLevel=ERROR"]
    words = ["ssh", *(word for option in options for word in ("-o", option))]
    if auth.get("ssh_private_key"):
        words += ["-i", str(Path(auth["ssh_private_key"]).expanduser())]
    needed = {"rsync": "command -v rsync"}
    if python:
        needed |= {python: f"command -v {python}", f"venv for {python}": f"{python} -c 'import ensurepip, venv'"}
    asked = "; ".join(f"{how} >/dev/null 2>&1 && echo 'has {what}'" for what, how in needed.items())
    try:
        done = subprocess.run(
            [*words, f"{user}@{address}", f"{asked}; true"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding(address, "bad", f"no ssh there: nothing heard in {_ANSWER_S:.0f} s")
    said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    if done.returncode == 255 and "Permission denied" in said:
        return Finding(address, "bad", f"refuses the key of {user}: put the public one there")
    if done.returncode == 255:
        return Finding(address, "bad", f"no ssh there: {said}")
    if done.returncode:
        return Finding(address, "bad", f"its shell fails: {said}")
    lacks = [what for what in needed if f"has {what}" not in done.stdout.splitlines()]
    if lacks:
        return Finding(address, "bad", f"has no {', no '.join(lacks)}")
    return Finding(address, "ok", f"answers, and has {', '.join(needed)}")


def amazon() -> Iterator[Finding]:
    """boto3 and credentials, as far as that can be said without asking Amazon."""
    if find_spec("boto3") is None:
        yield Finding("AWS", "bad", f"boto3 is not installed; {how_to_install('cluster')}")
        return
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session()
    try:
        providers = session.get_component("credential_provider")
        for asking in ("container-role", "iam-role"):
            providers.remove(asking)
        found = session.get_credentials()
    except botocore.exceptions.BotoCoreError as error:
        yield Finding("AWS", "bad", f"the credentials cannot be read: {error}")
        return
    if found is not None:
        yield Finding("AWS", "ok", f"boto3 {metadata.version('boto3')}, credentials from {found.method}")
    elif _on_amazon():
        yield Finding("AWS", "note", "no credentials of yours; this instance's own role must do")
    else:
        yield Finding("AWS", "bad", "no credentials: run `aws configure`, or set AWS_ACCESS_KEY_ID and its secret")


def _on_amazon() -> bool:
    try:
        return "Amazon" in Path("/sys/devices/virtual/dmi/id/sys_vendor").read_text()
    except OSError:
        return False


def google(text: str) -> Iterator[Finding]:
    """Google's client, and the name of a project."""
    if find_spec("googleapiclient") is None:
        yield Finding("GCP", "bad", "googleapiclient is not installed; pip install google-api-python-client")
    else:
        yield Finding("GCP", "ok", f"google-api-python-client {metadata.version('google-api-python-client')}")
    if _PLACEHOLDER in text:
        yield Finding("GCP", "bad", f"put your project's name where the file says {_PLACEHOLDER}")
