-- The account book: which records of `events` have an outcome, one bit for each offset, in buckets of 4,096. Written in
-- the transaction of the outcome itself; a bit that is set again says the same, so it is exact whatever is repeated.
CREATE TABLE read.account_book (
    partition integer NOT NULL,
    bucket    bigint  NOT NULL,
    decided   bit(4096),
    PRIMARY KEY (partition, bucket)
) WITH (fillfactor = 50);
COMMENT ON COLUMN read.account_book.bucket IS 'offsets from bucket * 4096 on';
COMMENT ON COLUMN read.account_book.decided IS 'the first bit is the lowest offset; null = all of them';

INSERT INTO read.account_book
SELECT partition, "offset" / 4096,
    NULLIF(bit_or(set_bit(repeat('0', 4096)::bit(4096), ("offset" % 4096)::integer, 1)), repeat('1', 4096)::bit(4096))
FROM (
    SELECT partition, "offset" FROM read.event_outcomes
    UNION
    SELECT source_partition, source_offset FROM read.dead_letters WHERE source_topic = 'events'
) AS decided (partition, "offset")
WHERE partition >= 0 AND "offset" >= 0
GROUP BY partition, "offset" / 4096;
