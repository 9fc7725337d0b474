"""Builds the read models in Postgres."""
