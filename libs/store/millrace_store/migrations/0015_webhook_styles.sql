-- Which headers an endpoint's deliveries carry beside those of Standard Webhooks.
ALTER TABLE control.webhook_endpoints
    ADD COLUMN style text NOT NULL DEFAULT 'standard' CHECK (style IN ('standard', 'ops'));
ALTER TABLE control.webhook_endpoints ALTER COLUMN style DROP DEFAULT;
COMMENT ON COLUMN control.webhook_endpoints.style IS 'ops: X-OpsIQ-Signature and its like, too';
