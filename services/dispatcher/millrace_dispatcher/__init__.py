"""Posts signed webhooks."""
