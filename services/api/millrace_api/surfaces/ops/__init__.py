"""The ops surface (seed 001): events fired, actions, customers, tickets, connectors, under `/v1`."""
