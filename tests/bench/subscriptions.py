"""One size of the subscription index, in a process of its own so that its memory can be told: prints one JSON line.

`python -m tests.bench.subscriptions 1000000`: so many subscriptions of one account, one in a hundred a wildcard, half
of them with an equality filter on a value of its own, on the identifier that is posted. Every event matches
exactly five.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Iterator

from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import Raw, SubscriptionControl, encode
from tests.bench import cpu

ACCOUNT = "acc_" + "b" * 32
IDENTIFIER = "e:bench/order"
MATCHES = 5
ROUNDS = 20_000


def subscriptions(count: int) -> Iterator[tuple[str, bytes]]:
    """Id and control value of each. The first five hear every event."""
    patterns = [IDENTIFIER, IDENTIFIER, "e:bench/*", "e:bench/ord*", "e:*/order"]
    for n in range(count):
        if n < MATCHES:
            pattern, filter = patterns[n], b'{"kind":["a"]}' if n == 1 else b"null"
        elif n % 100 == 7:
            pattern, filter = f"e:other-{n}/*", b"null"
        elif n % 2:
            pattern, filter = IDENTIFIER, b'{"customer":{"id":["c%d"]}}' % n
        else:
            pattern, filter = f"e:bench/other-{n}", b"null"
        control = SubscriptionControl(
            account=ACCOUNT,
            pattern=pattern,
            target_kind="endpoint",
            target_id="ep_" + "0" * 32,
            created_at=0,
            filter=Raw(filter),
        )
        yield f"sub_{n:032x}", encode(control)


def main(count: int) -> None:
    made = list(subscriptions(count))
    gc.collect()
    gc.freeze()
    values_bytes = sum(len(value) + sys.getsizeof(b"") for _, value in made)
    before, began = cpu.pss_bytes(os.getpid()), time.perf_counter()
    index = SubscriptionIndex()
    for id, value in made:
        index.apply(ACCOUNT, id, value)
    load_s = time.perf_counter() - began
    # The values are part of what a subscription costs; they were made before.
    held = cpu.pss_bytes(os.getpid()) - before + values_bytes
    properties = [b'{"customer":{"id":"none-%d"},"kind":"a","total":%d}' % (n, n) for n in range(ROUNDS)]
    for asked in properties[:1_000]:
        assert len(index.match(ACCOUNT, IDENTIFIER, asked, received_at=1)) == MATCHES
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for asked in properties:
            index.match(ACCOUNT, IDENTIFIER, asked, received_at=1)
        best = min(best, time.perf_counter() - began)
    print(json.dumps({"us": best / ROUNDS * 1e6, "bytes": held / count, "load_s": load_s}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
