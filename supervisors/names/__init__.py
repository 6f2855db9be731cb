"""Names for processes: registries, process groups, locks by key."""
