-- When an endpoint is started among those that hear the same event: the priority of the subscriptions it manages.
ALTER TABLE control.webhook_endpoints ADD COLUMN priority integer NOT NULL DEFAULT 400;
ALTER TABLE control.webhook_endpoints ALTER COLUMN priority DROP DEFAULT;
