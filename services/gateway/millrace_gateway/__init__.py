"""HTTP ingest to the events topic."""
