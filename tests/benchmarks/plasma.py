"""How full the object stores of a Ray are, asked of its raylets; nothing joins the cluster for it."""

from __future__ import annotations

from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.internal_api import node_stats
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions


class Stores:
    """Of the Ray whose control store is at `address` (HOST:PORT)."""

    def __init__(self, address: str) -> None:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as `ray.init` does when it joins
        options = GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        self._state = GlobalState()
        self._state._initialize_global_state(options)

    def used(self) -> dict[str, int]:
        """Bytes of objects in the store of each node, by node id (hex)."""
        found = {}
        for node in self._state.node_table():
            if node["Alive"]:
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
                found[node["NodeID"]] = int(stats.store_stats.object_store_bytes_used)
        return found
