"""What can be played or solved: found by the registry through the entry-point group `selfplay.envs`."""
