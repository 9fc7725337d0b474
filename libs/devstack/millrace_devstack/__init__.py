"""Kafka and Postgres as local processes, without containers."""
