"""What every service process shares: supervisor, health, metrics, logging, settings base."""
