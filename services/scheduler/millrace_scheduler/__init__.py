"""Keeps timers on the log."""
