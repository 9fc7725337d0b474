"""The native surface: everything of the platform under `/v1`, in the automation envelope."""
