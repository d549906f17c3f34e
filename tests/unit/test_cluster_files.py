"""The cluster files: as Ray's own launcher reads them, pinned like everything else, and with no secret in them.

AWS's is also launched as far as that goes without Amazon: against a mock of its API (moto), with real Ray and boto3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import selfplay
from trainers.run import placement

ROOT = Path(selfplay.__file__).resolve().parent.parent
AWS, GCP = ROOT / "cluster.yaml", ROOT / "trainers/clusters/gcp.yaml"
MACHINES, KUBERAY = ROOT / "trainers/clusters/machines.yaml", ROOT / "trainers/clusters/kuberay.yaml"
RAY = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", [AWS, GCP, MACHINES], ids=lambda path: path.stem)
def test_rays_launcher_takes_it(path: Path) -> None:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    jsonschema.validate(read(path), json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text()))
    whole = prepare_config(read(path))
    validate_config(whole)
    if path == MACHINES:
        (kind,) = whole["available_node_types"].values()
        assert kind["min_workers"] == len(read(path)["provider"]["worker_ips"])  # all of them, at once


@pytest.mark.parametrize("path", [AWS, GCP, MACHINES, KUBERAY], ids=lambda path: path.stem)
def test_it_is_pinned_guarded_and_holds_no_secret(path: Path) -> None:
    text = path.read_text()
    images = re.findall(r"rayproject/ray:(\S+?)[`,\s]", text)
    assert all(image.rsplit("-", 1)[0] == f"{RAY}-py311" for image in images)
    assert bool(images) == (path != MACHINES) and ("python3.11" in text) == (path == MACHINES)
    assert "constraints.txt" in text and "nightly" not in text
    assert ("0.0.0.0" in text) == (path == KUBERAY)  # there the pod is the border
    assert "mode: token" in text if path == KUBERAY else text.count("RAY_AUTH_MODE=token") >= 2
    assert not re.search(r"AKIA|aws_secret|aws_access|password|s3://\w", text, re.IGNORECASE)


@pytest.mark.parametrize("path", [AWS, GCP], ids=lambda path: path.stem)
def test_what_stays_is_on_demand_and_what_plays_is_spot(path: Path) -> None:
    file = read(path)
    types = file["available_node_types"]
    assert {name: placement.APART in t["resources"] for name, t in types.items()} == {
        name: name == file["head_node_type"] for name in types
    }
    assert [name for name, t in types.items() if placement.STEADY in t["resources"]] == ["steady"]
    assert types["head"]["resources"]["CPU"] == types["steady"]["resources"]["CPU"] == 0
    assert types["steady"]["min_workers"] == 1  # there before the first run asks
    assert all(bool(re.search("spot", str(t["node_config"]), re.I)) == (name in ("player", "rollout"))
               for name, t in types.items())  # fmt: skip
    assert sum(t.get("max_workers", 0) for t in types.values()) <= file["max_workers"]
    assert all(("GPU" in t["resources"]) == ("docker" in t) for t in types.values())


def test_kubernetes_has_the_same_nodes() -> None:
    manifest, types = read(KUBERAY), read(AWS)["available_node_types"]
    assert manifest["kind"] == "RayCluster" and manifest["spec"]["rayVersion"] == RAY
    groups = {group["groupName"]: group for group in manifest["spec"]["workerGroupSpecs"]}
    assert set(groups) == set(types) - {"head"}
    for name, group in groups.items():
        assert (group["minReplicas"], group["maxReplicas"]) == (types[name]["min_workers"], types[name]["max_workers"])
        (container,) = group["template"]["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == ("GPU" in types[name]["resources"])
    assert placement.STEADY in groups["steady"]["rayStartParams"]["resources"]
    assert placement.APART in manifest["spec"]["headGroupSpec"]["rayStartParams"]["resources"]


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A mock of Amazon's API on loopback; whatever boto3 does goes there."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "mock")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    iam = boto3.client("iam")
    iam.create_instance_profile(InstanceProfileName="selfplay-node")
    try:
        yield boto3.resource("ec2")
    finally:
        server.stop()


def test_amazon_is_asked_for_the_right_machines(amazon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the launcher makes a key pair in ~/.ssh
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0" * 64)
    monkeypatch.chdir(ROOT)
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    config = _bootstrap_config(prepare_config(read(AWS)), no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        tags = {TAG_RAY_NODE_KIND: NODE_KIND_HEAD if name == "head" else "worker", TAG_RAY_USER_NODE_TYPE: name}
        provider.create_node(kind["node_config"], tags, 1)
    found = {tag["Value"]: instance for instance in amazon.instances.all()
             for tag in instance.tags if tag["Key"] == TAG_RAY_USER_NODE_TYPE}  # fmt: skip
    wanted = read(AWS)["available_node_types"]
    assert set(found) == set(wanted)
    for name, instance in found.items():
        assert instance.instance_type == wanted[name]["node_config"]["InstanceType"]
        assert (instance.instance_lifecycle == "spot") == (name in ("player", "rollout"))
        assert instance.iam_instance_profile["Arn"].endswith("selfplay-node")
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert not provider.non_terminated_nodes({})


def test_the_dashboard_draws_what_is_exported() -> None:
    from trainers.run.status_publisher import METRICS

    board = json.loads((ROOT / "trainers/clusters/grafana.json").read_text())
    drawn = set(re.findall(r"ray_selfplay_(\w+)", json.dumps(board["panels"])))
    assert drawn <= set(METRICS) and {"episodes", "staleness", "queued_blocks", "archive_lag_s"} <= drawn
    assert any("gpu" in target["expr"] for panel in board["panels"] for target in panel["targets"])
