-- Customers, tickets and what else events tell of. A member is [place in the log, value]; an erased thing has none.

-- name: get_entity
SELECT id, created_ms, updated_ms, members FROM read.entities
WHERE account = $1 AND kind = $2 AND id = $3 AND members <> '{}';

-- Newest first by (created_ms, id).
-- name: list_entities
SELECT id, created_ms, updated_ms, members FROM read.entities
WHERE account = $1 AND kind = $2 AND members <> '{}' AND (created_ms, id) < ($3::bigint, $4::text)
    AND ($6::text IS NULL OR members -> 'status' ->> 1 = $6)
    AND ($7::text IS NULL OR members -> 'customer_id' ->> 1 = $7)
    AND ($8::text IS NULL OR members -> 'priority' ->> 1 = $8 AND left(members -> 'priority' ->> 1, 64) = left($8, 64))
    AND ($9::text IS NULL OR members -> 'assignee' ->> 1 = $9 AND left(members -> 'assignee' ->> 1, 64) = left($9, 64))
    AND ($10::bigint IS NULL OR created_ms >= $10) AND ($11::bigint IS NULL OR created_ms < $11)
    AND ($12::bigint IS NULL OR updated_ms >= $12) AND ($13::bigint IS NULL OR updated_ms < $13)
    AND ($14::text IS NULL OR
        (array_to_tsvector(ARRAY[account, kind]) || to_tsvector('simple'::regconfig,
            COALESCE(members -> 'name' ->> 1, '') || ' ' || COALESCE(members -> 'email' ->> 1, '') || ' '
            || COALESCE(members -> 'company' ->> 1, '') || ' ' || COALESCE(members -> 'number' ->> 1, '') || ' '
            || COALESCE(members -> 'subject' ->> 1, '')))
        @@ (quote_literal($1)::tsquery && quote_literal($2)::tsquery && plainto_tsquery('simple', $14)))
ORDER BY created_ms DESC, id DESC LIMIT $5;

-- Whose name has all these words; one who is called just so comes first.
-- name: customers_named
SELECT id, created_ms, updated_ms, members FROM read.entities
WHERE account = $1 AND kind = 'customer' AND members <> '{}'
    AND (array_to_tsvector(ARRAY[account, kind]) || to_tsvector('simple'::regconfig,
            COALESCE(members -> 'name' ->> 1, '') || ' ' || COALESCE(members -> 'email' ->> 1, '') || ' '
            || COALESCE(members -> 'company' ->> 1, '') || ' ' || COALESCE(members -> 'number' ->> 1, '') || ' '
            || COALESCE(members -> 'subject' ->> 1, '')))
        @@ (quote_literal($1)::tsquery && 'customer'::tsquery && plainto_tsquery('simple', $2))
    AND to_tsvector('simple'::regconfig, COALESCE(members -> 'name' ->> 1, '')) @@ plainto_tsquery('simple', $2)
ORDER BY lower(members -> 'name' ->> 1) = lower($2) DESC, id LIMIT $3;

-- The newest things of a kind that belong to a customer.
-- name: entities_of_customer
SELECT id, created_ms, updated_ms, members FROM read.entities
WHERE account = $1 AND kind = $2 AND members -> 'customer_id' ->> 1 = $3 AND members <> '{}'
    AND ($4::text IS NULL OR members -> 'status' ->> 1 = $4)
ORDER BY created_ms DESC, id DESC LIMIT $5;

-- name: count_of_customer
SELECT count(*) FROM (
    SELECT FROM read.entities
    WHERE account = $1 AND kind = $2 AND members -> 'customer_id' ->> 1 = $3 AND members <> '{}'
        AND members -> 'status' ->> 1 = ANY ($4::text[])
    LIMIT $5) AS counted;

-- name: safe_fields
SELECT kind, fields, updated_at FROM control.safe_fields WHERE account = $1;

-- name: keep_safe_fields
INSERT INTO control.safe_fields (account, kind, fields, updated_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (account, kind) DO UPDATE SET fields = EXCLUDED.fields, updated_at = EXCLUDED.updated_at;

-- name: forget_safe_fields
DELETE FROM control.safe_fields WHERE account = $1 AND kind = $2;
