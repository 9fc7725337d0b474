"""FastAPI pieces shared by gateway and api."""
