"""The Ray actors of a run. Plain classes: the trainer's loop makes actors of them and owns every one."""
