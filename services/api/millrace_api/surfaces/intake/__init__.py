"""The intake surface (seed 002): intake bots, submissions and webhooks, under `/api/v1`."""
