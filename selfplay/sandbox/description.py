"""What this machine's confinement holds, found out by attacks on it."""

from __future__ import annotations

import json
import subprocess
import sys

from selfplay import surroundings
from selfplay.sandbox.record import Confinement, Description, Namespaces

#: Seconds for all attacks together.
_MOST_S = 60.0
_CODE = "from selfplay.sandbox.probe import main; main(bool(int(sys.argv[1])))"


def describe(own_namespaces: bool = True) -> Description:
    """Confines processes on this machine, as a verifier's would be, and attacks from within; takes about a second.

    own_namespaces: False to find out what holds where the kernel refuses namespaces.
    """
    if sys.platform != "linux":
        return Description(None, "it needs Linux", (), ())
    try:
        done = subprocess.run(
            surroundings.command(_CODE, str(int(own_namespaces))),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MOST_S,
            check=True,
        )
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Description(None, f"the probe failed: {error}", (), ())
    plain = said["confinement"]
    found = None
    if plain is not None:
        plain["limits"] = tuple((name, value) for name, value in plain["limits"])
        found = Confinement(**{**plain, "namespaces": Namespaces(**plain["namespaces"])})
    return Description(found, said["reason"], tuple(said["refused"]), tuple(said["succeeded"]))
