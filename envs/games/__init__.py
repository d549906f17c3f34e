"""Games, one file each: `SPEC` declares the game, the docstring specifies it. Names starting with "_" are not games."""
