"""Tasks, one file each: `SPEC` declares the task, the docstring specifies it. Names starting with "_" are not tasks."""
