"""One request: its actor, what it is told and tells, and how its reply reaches the consumer."""
