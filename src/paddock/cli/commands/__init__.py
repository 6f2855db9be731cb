"""What each command is called, what it takes and what its help says; importing these loads no model code."""
