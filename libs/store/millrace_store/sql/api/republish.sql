-- Writers of these tables wait until the end: no version can be taken between reading a row and queueing its entry.
-- name: hold_still
LOCK TABLE control.accounts, control.api_keys, control.plans, control.workflows, control.webhook_endpoints,
    control.subscriptions, control.credentials, control.actions
IN SHARE MODE;

-- An entry keeps its id, so the relay publishes it before any later version.
-- name: queue_again
INSERT INTO control.control_outbox (kind, account, aggregate, version, value) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (kind, account, aggregate, version) DO UPDATE SET value = excluded.value, published_position = NULL;
