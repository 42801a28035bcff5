"""Plan, seeds, worker and timing: turns entries and items into rows."""
