"""Games and tasks: found by name, loaded, checked, judged."""
