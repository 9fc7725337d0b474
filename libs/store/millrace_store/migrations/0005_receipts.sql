-- The receipt chain as it stands on `receipt-roots` and `receipt-leaves`. The first record of an account and day stands;
-- a later one that says something else leaves its chain in other_chain, and then somebody must look.
CREATE TABLE read.receipt_roots (
    account     text        NOT NULL,
    day         timestamptz NOT NULL,
    leaves      bigint      NOT NULL,
    root        bytea       NOT NULL,
    previous    bytea       NOT NULL,
    chain       bytea       NOT NULL,
    other_chain bytea,
    at          timestamptz NOT NULL,
    PRIMARY KEY (account, day)
);
CREATE INDEX ON read.receipt_roots (root);
CREATE INDEX ON read.receipt_roots (day, account);
CREATE INDEX ON read.receipt_roots (other_chain) WHERE other_chain IS NOT NULL;
COMMENT ON COLUMN read.receipt_roots.day IS 'its start';

-- Neighbouring leaves of one tree: a subtree with a root of its own. Trees are large and proofs few, so a row holds many.
CREATE TABLE read.receipt_leaves (
    account  text        NOT NULL,
    day      timestamptz NOT NULL,
    first    bigint      NOT NULL,
    root     bytea       NOT NULL,
    first_id bytea       NOT NULL,
    last_id  bytea       NOT NULL,
    entries  bytea       NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (account, day, first)
);
CREATE INDEX ON read.receipt_leaves (account, day, first_id);
COMMENT ON COLUMN read.receipt_leaves.first IS 'the index of its first leaf';

CREATE TABLE read.receipt_days (
    day      timestamptz NOT NULL,
    accounts bigint      NOT NULL,
    facts    bigint      NOT NULL,
    ends     jsonb       NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (day)
);
COMMENT ON COLUMN read.receipt_days.ends IS '[topic, partition, offset] at which the next day begins';

CREATE TABLE read.receipt_seeds (
    "offset" bigint      NOT NULL,
    seed     bytea       NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY ("offset")
);
COMMENT ON COLUMN read.receipt_seeds.seed IS 'what salts follow from: never shown. The one with the least offset stands';
