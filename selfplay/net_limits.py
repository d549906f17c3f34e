"""The largest nets that are built, by their settings; for settings files as for run folders. Imports nothing."""

from __future__ import annotations

#: Larger nets are a mistake, or a stranger's wish that we build them: one of many blocks takes minutes to make.
MOST = {
    "channels": 8192,
    "blocks": 256,
    "hidden": 65536,
    "layers": 256,
    "policy_channels": 1024,
    "value_channels": 1024,
    "value_hidden": 65536,
}
