"""What the API can do, whoever asks: use cases over Postgres and the log, without a web framework.

Surfaces call these; no rule of the product stands in a surface. Each function gets the account first, and every
statement it runs carries it.
"""
