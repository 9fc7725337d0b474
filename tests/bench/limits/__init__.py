"""The bare limits: the fewest lines of Python that do the same hops, with no product around them.

Each is a program of its own, run beside ours in the same run on the same broker, database and machine. They are the
loops of the design's bare pipeline and must be no slower than those: no keys, limits, subscriptions, dedupe, lanes,
retries or accounting.
"""
