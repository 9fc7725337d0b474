"""One module for each resource; each route parses, asks the application once, and answers."""
