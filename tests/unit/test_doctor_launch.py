"""`selfplay doctor --launch FILE` tells before `ray up` what would fail, each in a sentence of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import selfplay
from selfplay.cli import doctor_launch, main
from selfplay.cli.findings import Finding
from selfplay.errors import UserError

ROOT = Path(selfplay.__file__).resolve().parent.parent
MACHINES = ROOT / "trainers/clusters/machines.yaml"
#: Stands in for ssh: what it does depends on the host it is asked for.
SSH = """#!{python}
import sys
user, host = next(word for word in sys.argv if "@" in word).split("@")
asked = sys.argv[-1]
for name, code, said in [
    ("silent", 255, "ssh: connect to host silent port 22: Connection timed out"),
    ("nowhere", 255, "ssh: Could not resolve hostname nowhere: Name or service not known"),
    ("refuses", 255, "selfplay@refuses: Permission denied (publickey)."),
    ("broken", 1, "This account is currently not available."),
]:
    if host == name:
        print(said, file=sys.stderr)
        sys.exit(code)
lacks = {{"bare": ["rsync", "python3.11", "venv for python3.11"], "old": ["python3.11", "venv for python3.11"],
         "debian": ["venv for python3.11"]}}.get(host, [])
assert "-i" in sys.argv and "BatchMode=yes" in sys.argv and user == "selfplay", sys.argv
for tool in ("rsync", "python3.11", "venv for python3.11"):
    if tool not in lacks and f"has {{tool}}" in asked:
        print("has", tool)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key and a token, a PATH with an ssh that only pretends, and no variables of the real one."""
    for folder in (".ssh", ".ray", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".ssh/id_ed25519").write_text("key")
    (tmp_path / ".ssh/id_ed25519").chmod(0o600)
    (tmp_path / ".ray/auth_token").write_text("0" * 64)
    for name, text in (("ssh", SSH.format(python=sys.executable)), ("rsync", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RUNS", "s3://bucket/runs")
    for name in ("RAY_AUTH_TOKEN_PATH", *(name for name in os.environ if name.startswith("AWS_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    return tmp_path


Changed = Callable[..., Path]


@pytest.fixture
def changed(home: Path) -> Changed:
    """`changed(key=value, …)`: the shipped file for one's own machines, with these settings instead."""

    def write(**settings: Any) -> Path:
        path = home / "file.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(MACHINES.read_text()), **settings}))
        return path

    return write


def hosts(*names: str) -> dict[str, Any]:
    return {"type": "local", "head_ip": names[0], "worker_ips": list(names[1:])}


def wrong(path: Path) -> list[Finding]:
    return [finding for finding in doctor_launch.examine(path) if finding.level != "ok"]


def test_a_cluster_that_will_come_up(changed: Changed) -> None:
    found = list(doctor_launch.examine(changed(provider=hosts("head", "one", "two"))))
    assert {finding.level for finding in found} == {"ok"}
    assert {"file", "ray", "token", "key", "head", "one", "two"} == {finding.subject for finding in found}


def test_machines_are_told_apart(changed: Changed) -> None:
    names = ["head", "silent", "nowhere", "refuses", "broken", "bare", "old", "debian"]
    told = {finding.subject: finding.text for finding in wrong(changed(provider=hosts(*names)))}
    assert told == {
        "silent": "no ssh there: ssh: connect to host silent port 22: Connection timed out",
        "nowhere": "no ssh there: ssh: Could not resolve hostname nowhere: Name or service not known",
        "refuses": "refuses the key of selfplay: put the public one there",
        "broken": "its shell fails: This account is currently not available.",
        "bare": "has no rsync, no python3.11, no venv for python3.11",
        "old": "has no python3.11, no venv for python3.11",
        "debian": "has no venv for python3.11",
    }


def test_no_head(changed: Changed) -> None:
    (finding,) = wrong(changed(provider={"type": "local", "worker_ips": ["one"]}))
    assert finding.level == "bad" and "provider.head_ip is missing" in finding.text


def test_a_port_where_nobody_listens(changed: Changed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if not shutil.which("ssh"):
        pytest.skip("no ssh here")
    with socket.socket() as here:
        if here.connect_ex(("127.0.0.1", 22)) == 0:
            pytest.skip("an ssh server listens here")
    (finding,) = [one for one in wrong(changed(provider=hosts("127.0.0.1"))) if one.subject == "127.0.0.1"]
    assert finding.level == "bad" and finding.text.startswith("no ssh there: ") and "refused" in finding.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cluster_name": 3}, "cluster_name: 3 is not of type 'string'"),
        ({"provider": {}}, "provider"),
        ({"max_worker": 3}, "'max_worker' was unexpected"),
        ({"kind": "RayCluster"}, "kubectl apply"),
    ],
)
def test_what_the_launcher_would_refuse_is_told_alone(changed: Changed, settings: dict[str, Any], said: str) -> None:
    (finding,) = wrong(changed(**settings))
    assert finding.level == "bad" and finding.subject == "file" and said in finding.text


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("a: [", "is not YAML"), ("- 1", "must hold settings"), (b"\xff", "not text")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    if text is not None:
        (tmp_path / "x.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=said):
        list(doctor_launch.examine(tmp_path / "x.yaml"))


def only(changed: Changed, subject: str, **settings: Any) -> Finding:
    (finding,) = wrong(changed(provider=hosts("head"), **settings))
    assert finding.subject == subject
    return finding


def test_key_and_token(changed: Changed, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = home / ".ssh/id_ed25519"
    key.chmod(0o644)
    assert "chmod 600" in only(changed, "key").text
    key.unlink()
    assert f"{key} is missing" in only(changed, "key").text
    key.touch(0o600)
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert "RAY_AUTH_MODE=token" in only(changed, "token").text
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "elsewhere"))
    assert f"none at {home / 'elsewhere'}" in only(changed, "token").text
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    assert "/nowhere is to be copied" in only(changed, "files", file_mounts={"~/x": "/nowhere"}).text
    monkeypatch.delenv("RUNS")
    assert "export RUNS=" in only(changed, "runs").text


def test_another_ray(changed: Changed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = {"image": "rayproject/ray:2.1.0-py311-cpu", "container_name": "x"}
    found = only(changed, "ray", docker=docker)
    assert re.search(r"is installed here, but the image ray:2.1.0-py311-cpu has 2.1.0;", found.text)
    (tmp_path / "constraints.txt").write_text("ray==2.2.0\n")
    monkeypatch.chdir(tmp_path)
    assert "constraints.txt has 2.2.0" in only(changed, "ray").text
    (tmp_path / "constraints.txt").unlink()
    assert "launch from the project's root" in only(changed, "ray").text


def test_amazon(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_launch, "_on_amazon", lambda: False)
    (finding,) = wrong(ROOT / "cluster.yaml")
    assert finding.subject == "AWS" and "aws configure" in finding.text
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    assert not wrong(ROOT / "cluster.yaml")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    (finding,) = wrong(ROOT / "cluster.yaml")
    assert "nobody" in finding.text


def test_google(home: Path) -> None:
    told = [finding.text for finding in wrong(ROOT / "trainers/clusters/gcp.yaml")]
    assert "put your project's name where the file says YOUR-PROJECT" in told


def test_the_command(changed: Changed, capsys: pytest.CaptureFixture[str]) -> None:
    def doctor(*words: object) -> int:
        return main.call(["doctor", *map(str, words)])

    assert doctor("--launch", changed(provider=hosts("head")), "--json") == 0
    assert {row["level"] for row in json.loads(capsys.readouterr().out)} == {"ok"}
    assert doctor("--launch", changed(provider=hosts("silent"))) == 1
    assert "no ssh there" in capsys.readouterr().out
    assert doctor("--launch", "nowhere.yaml") == 2
    assert "error: nowhere.yaml cannot be read" in capsys.readouterr().err
    assert doctor("--launch", "x", "--cluster") == 2
