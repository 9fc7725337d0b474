"""One connector."""
