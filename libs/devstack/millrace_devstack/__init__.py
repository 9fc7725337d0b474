"""Kafka and Postgres as local processes, from the package registries alone, and the runner behind `make dev`.

Not here: anything a deployed service needs. Services never import this package; tests, the bench and the command
line do.
"""
