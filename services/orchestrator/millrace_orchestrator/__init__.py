"""Drives runs by the pure decider."""
