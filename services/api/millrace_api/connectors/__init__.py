"""Where connectors run: each in a process of its own (`host`), or elsewhere (`remote`)."""
