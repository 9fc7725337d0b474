"""Live rates in windows."""
