"""What `selfplay.environments.checks.game_check` looks at: the rules, and the views of them that an author declares."""
