"""Matches events with subscriptions."""
