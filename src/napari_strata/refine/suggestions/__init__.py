"""Where a person should look next, and why."""
