"""How the API looks from outside: one package for each surface, each with its envelope, its auth and thin routes."""
