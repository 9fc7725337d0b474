"""The automation surface (seed 004): workflows, executions, forms, credentials, integrations, under `/v1`."""
