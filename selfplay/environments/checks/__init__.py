"""What `selfplay.environments.check` looks at: the rules, and the views of them that an author declares."""
