"""A spot node's last minutes: the cloud gives notice, players seal what they have, Ray sends nothing new there.

`python -m selfplay.actors.notice aws` (or gcp) waits on a node for the cloud's word, leaves a file, and tells Ray to
drain the node; cluster.yaml starts it beside Ray. Who plays on the node looks for the file between moves, and seals the
games under way; who reasons finishes its call, and begins no other. Without notice a vanishing node is a crash like any
other: games in flight are lost and counted, problems are worked on again elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

#: Two minutes on AWS, half a minute on Google Cloud.
DEADLINE_S = {"aws": 110, "gcp": 25}
_ASK_S = 3.0
_AWS, _GCP = "http://169.254.169.254/latest", "http://metadata.google.internal/computeMetadata/v1"


class Leaving(Exception):
    """An actor does not begin what it is asked: its node has been given notice."""


def place() -> Path | None:
    """The file that says: this node is leaving; none where SELFPLAY_NOTICE names none, as at home."""
    named = os.environ.get("SELFPLAY_NOTICE")
    return Path(named) if named else None


def leaving() -> bool:
    """Whether this node has been given notice."""
    file = place()
    return file is not None and file.exists()


def refuse_if_leaving() -> None:
    """Raises `Leaving` where this node has been given notice."""
    if leaving():
        raise Leaving


def given(cloud: str) -> bool:
    """Asks the cloud's metadata service once. False, too, where it does not answer."""
    try:
        if cloud == "aws":
            wanted = urllib.request.Request(f"{_base('aws')}/api/token", method="PUT")
            wanted.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
            token = _ask(wanted)
            asked = urllib.request.Request(f"{_base('aws')}/meta-data/spot/instance-action")
            asked.add_header("X-aws-ec2-metadata-token", token)
            return bool(_ask(asked))
        asked = urllib.request.Request(f"{_base('gcp')}/instance/preempted")
        asked.add_header("Metadata-Flavor", "Google")
        return _ask(asked).strip() == "TRUE"
    except OSError:  # 404: no notice
        return False


def _base(cloud: str) -> str:
    return os.environ.get("SELFPLAY_METADATA") or {"aws": _AWS, "gcp": _GCP}[cloud]


def _ask(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=2.0) as answer:
        return str(answer.read(1000).decode())


def main() -> None:
    cloud, file = sys.argv[1], place()
    if file is None:
        sys.exit("SELFPLAY_NOTICE must name the file by which players are told")
    file.unlink(missing_ok=True)  # of a node that was before
    while not given(cloud):
        time.sleep(_ASK_S)
    file.touch()
    import ray

    ray.init(address="auto", log_to_driver=False)
    node = ray.get_runtime_context().get_node_id()
    subprocess.run(
        ["ray", "drain-node", "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message", f"{cloud} gave notice", "--deadline-remaining-seconds", str(DEADLINE_S[cloud])],
        check=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
