-- What the migrations add up to: made from them, for reading; a test holds the two together.
-- Written by `python -m tests.support.schema <dsn of a migrated database>`.

CREATE SCHEMA control;

CREATE SCHEMA read;

CREATE TABLE control.accounts (
    id text NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    plan text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    unordered text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    retention_days integer DEFAULT 14 NOT NULL,
    test_of text,
    flow text
);

COMMENT ON COLUMN control.accounts.unordered IS 'identifiers whose order was given up so that they spread';

COMMENT ON COLUMN control.accounts.test_of IS 'the account whose test keys act on this one';

COMMENT ON COLUMN control.accounts.flow IS 'JSON as it is published; null = never had one, {} = had one: its owner must hear that there is none';

CREATE FUNCTION control.kept_since(account text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    RETURN (SELECT (date_trunc('day'::text, now(), 'UTC'::text) - make_interval(hours => (24 * accounts.retention_days))) FROM control.accounts WHERE (accounts.id = kept_since.account));

CREATE FUNCTION control.first_kept(account text) RETURNS uuid
    LANGUAGE sql STABLE
    RETURN ((lpad(to_hex(((EXTRACT(epoch FROM control.kept_since(account)) * (1000)::numeric))::bigint), 12, '0'::text) || repeat('0'::text, 20)))::uuid;

CREATE FUNCTION control.payload_bytes(payload bytea) RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN ((octet_length(payload) = 37) AND (get_byte(payload, 0) = 0)) THEN ((('x'::text || encode(substr(payload, 2, 4), 'hex'::text)))::bit(32))::integer ELSE octet_length(payload) END;

COMMENT ON FUNCTION control.payload_bytes(payload bytea) IS 'the size of a payload, wherever it lies; reads none';

CREATE FUNCTION control.wake_relay() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify('control_outbox', '');
    RETURN NULL;
END
$$;

CREATE TABLE control.action_versions (
    account text NOT NULL,
    action uuid NOT NULL,
    version bigint NOT NULL,
    contract bytea NOT NULL,
    digest text NOT NULL,
    signature text,
    signed_by uuid,
    registered_by text NOT NULL,
    registered_at timestamp with time zone NOT NULL
);

CREATE TABLE control.actions (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    contract bytea NOT NULL,
    digest text NOT NULL,
    signature text,
    signed_by uuid,
    sealed_secret text NOT NULL,
    seal text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone
);

COMMENT ON COLUMN control.actions.version IS 'also when only its secret changed or it was deleted';

COMMENT ON COLUMN control.actions.contract IS 'its RFC 8785 form, without the signature';

COMMENT ON COLUMN control.actions.signature IS 'its author''s, by the key signed_by; null = it was taken over a trusted call';

COMMENT ON COLUMN control.actions.seal IS 'the registry''s own, under the action''s secret';

CREATE TABLE control.api_keys (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    surface text NOT NULL,
    hint text NOT NULL,
    digest text NOT NULL,
    scopes text[] NOT NULL,
    test boolean DEFAULT false NOT NULL,
    sealed_secret text,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    person uuid,
    old_digest text,
    old_sealed_secret text,
    old_until timestamp with time zone,
    last_used_at timestamp with time zone
);

COMMENT ON COLUMN control.api_keys.hint IS 'what may be shown for ever: the prefix and the last four characters';

COMMENT ON COLUMN control.api_keys.digest IS 'HMAC-SHA256 of the key under the pepper, hexadecimal';

COMMENT ON COLUMN control.api_keys.sealed_secret IS 'the secret of keys that sign, under the key ring';

COMMENT ON COLUMN control.api_keys.person IS 'whose key it is: his role bounds what it may';

COMMENT ON COLUMN control.api_keys.old_digest IS 'of the key before the last rotation, good until old_until';

COMMENT ON COLUMN control.api_keys.last_used_at IS 'for a request to the API; the gateway tells nobody';

CREATE TABLE control.confirmations (
    account text NOT NULL,
    id uuid NOT NULL,
    action uuid NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    digest text NOT NULL,
    params bytea NOT NULL,
    arguments_hash text NOT NULL,
    prompt text,
    roles text[] NOT NULL,
    requested_by text NOT NULL,
    requested_role text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    state text NOT NULL,
    decided_by text,
    decided_role text,
    decided_at timestamp with time zone,
    told text,
    CONSTRAINT confirmations_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'confirmed'::text, 'refused'::text])))
);

COMMENT ON COLUMN control.confirmations.arguments_hash IS 'of account, action, contract to the letter and parameters to the letter: the yes holds for these alone';

COMMENT ON COLUMN control.confirmations.told IS 'the state of which the log was told last; null = of none yet';

CREATE TABLE control.connections (
    account text NOT NULL,
    id uuid NOT NULL,
    public_id text NOT NULL,
    version bigint NOT NULL,
    connector text NOT NULL,
    name text NOT NULL,
    url text,
    config text NOT NULL,
    sealed_secrets text NOT NULL,
    enabled boolean NOT NULL,
    declared text,
    declared_at timestamp with time zone,
    endpoint uuid,
    received bigint DEFAULT 0 NOT NULL,
    refused bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    timed_out bigint DEFAULT 0 NOT NULL,
    events bigint DEFAULT 0 NOT NULL,
    failures_in_row integer DEFAULT 0 NOT NULL,
    last_received_at timestamp with time zone,
    last_event_at timestamp with time zone,
    last_error_at timestamp with time zone,
    last_error text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone
);

COMMENT ON COLUMN control.connections.public_id IS 'names it in the address that its platform posts to';

COMMENT ON COLUMN control.connections.url IS 'of a remote connector: where it serves the five calls';

COMMENT ON COLUMN control.connections.config IS 'JSON as its owner wrote it';

COMMENT ON COLUMN control.connections.sealed_secrets IS 'JSON, under the key ring';

COMMENT ON COLUMN control.connections.declared IS 'JSON: what the connector last said of itself';

COMMENT ON COLUMN control.connections.endpoint IS 'the webhook endpoint of what it subscribes to';

CREATE TABLE control.control_outbox (
    id bigint NOT NULL,
    kind text NOT NULL,
    account text NOT NULL,
    aggregate text NOT NULL,
    version bigint NOT NULL,
    value bytea,
    published_position bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON COLUMN control.control_outbox.value IS 'the JSON of the control record; null = the aggregate is deleted';

ALTER TABLE control.control_outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.control_outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.credentials (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    sealed_value text NOT NULL,
    place text NOT NULL,
    parameter text NOT NULL,
    prefix text NOT NULL,
    hosts text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT credentials_place_check CHECK ((place = ANY (ARRAY['header'::text, 'query'::text]))),
    CONSTRAINT credentials_type_check CHECK ((type = ANY (ARRAY['api_key'::text, 'bearer'::text, 'basic'::text])))
);

COMMENT ON COLUMN control.credentials.parameter IS 'the header, or the query parameter, that it stands in';

COMMENT ON COLUMN control.credentials.hosts IS 'where it may be sent; none = anywhere';

CREATE TABLE control.disablings (
    account text NOT NULL,
    endpoint uuid NOT NULL,
    disabled_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    since timestamp with time zone NOT NULL,
    told_at timestamp with time zone,
    CONSTRAINT disablings_reason_check CHECK ((reason = ANY (ARRAY['gone'::text, 'failing'::text])))
);

COMMENT ON COLUMN control.disablings.since IS 'when it answered 410, or the first of the failures';

CREATE TABLE control.dropped_days (
    day date NOT NULL,
    first_id uuid NOT NULL,
    after_id uuid NOT NULL,
    dropped_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON COLUMN control.dropped_days.after_id IS 'the first id of the day behind it';

CREATE TABLE control.forms (
    account text NOT NULL,
    id uuid NOT NULL,
    public_id text NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    description text,
    fields text NOT NULL,
    status text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT forms_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'published'::text])))
);

COMMENT ON COLUMN control.forms.public_id IS 'names it in the address of its public page';

COMMENT ON COLUMN control.forms.fields IS 'JSON, checked when it was saved';

CREATE TABLE control.idempotency_keys (
    account text NOT NULL,
    api_key text NOT NULL,
    key text NOT NULL,
    request bytea NOT NULL,
    status integer,
    body bytea,
    asked_at timestamp with time zone NOT NULL,
    held_until timestamp with time zone
);

COMMENT ON COLUMN control.idempotency_keys.request IS 'a digest: the same key with another request is a conflict';

COMMENT ON COLUMN control.idempotency_keys.held_until IS 'until then the work is another request''s, unless it has been answered; over early where it failed';

CREATE TABLE control.integrations (
    account text NOT NULL,
    id uuid NOT NULL,
    provider text NOT NULL,
    name text NOT NULL,
    base_url text NOT NULL,
    credential uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    tested_at timestamp with time zone,
    test_status text,
    test_http_status integer,
    test_duration_ms double precision,
    test_message text,
    CONSTRAINT integrations_test_status_check CHECK ((test_status = ANY (ARRAY['succeeded'::text, 'failed'::text])))
);

CREATE TABLE control.people (
    account text NOT NULL,
    id uuid NOT NULL,
    email text NOT NULL,
    name text,
    role text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT people_role_check CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text])))
);

CREATE TABLE control.plans (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    description text,
    definition text NOT NULL,
    compiled bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT plans_kind_check CHECK ((kind = ANY (ARRAY['job'::text, 'chain'::text])))
);

COMMENT ON COLUMN control.plans.definition IS 'JSON as its author wrote it (jsonb would refuse \u0000 and move numbers)';

COMMENT ON COLUMN control.plans.compiled IS 'the JSON that a run pins';

CREATE TABLE control.redrives (
    account text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key text NOT NULL,
    state text NOT NULL,
    target text NOT NULL,
    to_partition integer,
    to_offset bigint,
    reason text,
    requested_by text NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    done_at timestamp with time zone,
    CONSTRAINT redrives_state_check CHECK ((state = ANY (ARRAY['asked'::text, 'written'::text, 'refused'::text])))
);

CREATE TABLE control.replays (
    account text NOT NULL,
    id uuid NOT NULL,
    state text NOT NULL,
    since timestamp with time zone NOT NULL,
    until timestamp with time zone NOT NULL,
    pattern text NOT NULL,
    filter text,
    "where" text,
    subscription uuid,
    per_s integer NOT NULL,
    looked_at bigint DEFAULT 0 NOT NULL,
    written bigint DEFAULT 0 NOT NULL,
    cursor_at timestamp with time zone NOT NULL,
    cursor_id uuid NOT NULL,
    requested_by text NOT NULL,
    reason text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT replays_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'running'::text, 'completed'::text, 'cancelled'::text, 'failed'::text])))
);

COMMENT ON COLUMN control.replays.state IS 'waiting: the read models do not hold yet all that was on the log when it was asked for';

COMMENT ON COLUMN control.replays.cursor_at IS 'with cursor_id: the last event, by (received_at, id), that was dealt with';

CREATE TABLE control.safe_fields (
    account text NOT NULL,
    kind text NOT NULL,
    fields text[] NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE control.spent_nonces (
    account text NOT NULL,
    api_key text NOT NULL,
    nonce text NOT NULL,
    valid_until timestamp with time zone NOT NULL
);

CREATE TABLE control.submissions (
    account text NOT NULL,
    id uuid NOT NULL,
    form uuid NOT NULL,
    data text NOT NULL,
    submitted_by text,
    created_at timestamp with time zone NOT NULL,
    told_at timestamp with time zone,
    nonce text
);

COMMENT ON COLUMN control.submissions.data IS 'JSON, as it was checked against the form';

COMMENT ON COLUMN control.submissions.submitted_by IS 'the API key; null = somebody on the public page';

COMMENT ON COLUMN control.submissions.nonce IS 'of the page it was sent from; null = it came another way';

CREATE TABLE control.subscriptions (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    pattern text NOT NULL,
    filter text,
    "where" text,
    priority integer NOT NULL,
    target_kind text NOT NULL,
    target_id uuid NOT NULL,
    enabled boolean NOT NULL,
    managed_by uuid,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    flow text,
    CONSTRAINT subscriptions_target_kind_check CHECK ((target_kind = ANY (ARRAY['job'::text, 'chain'::text, 'workflow'::text, 'webhook'::text])))
);

COMMENT ON COLUMN control.subscriptions.managed_by IS 'the webhook endpoint whose list of events this subscription is part of; it is changed there';

COMMENT ON COLUMN control.subscriptions.flow IS 'JSON as it is published; null = never had one, {} = had one: its runs still come by the flow''s owner';

CREATE TABLE control.webhook_endpoints (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    url text NOT NULL,
    description text,
    events text[] NOT NULL,
    sealed_secret text NOT NULL,
    old_sealed_secret text,
    old_secret_until timestamp with time zone,
    enabled boolean NOT NULL,
    retry_schedule_s double precision[],
    timeout_s double precision NOT NULL,
    concurrency integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    rate double precision,
    disabled_at timestamp with time zone,
    disabled_reason text,
    judged_since timestamp with time zone NOT NULL,
    style text NOT NULL,
    priority integer NOT NULL,
    CONSTRAINT webhook_endpoints_disabled_reason_check CHECK ((disabled_reason = ANY (ARRAY['requested'::text, 'gone'::text, 'failing'::text]))),
    CONSTRAINT webhook_endpoints_style_check CHECK ((style = ANY (ARRAY['standard'::text, 'ops'::text])))
);

COMMENT ON COLUMN control.webhook_endpoints.old_secret_until IS 'until then deliveries are signed with both secrets';

COMMENT ON COLUMN control.webhook_endpoints.rate IS 'deliveries a second at most';

COMMENT ON COLUMN control.webhook_endpoints.disabled_reason IS 'requested by its owner, gone (it answered 410), or failing (nothing but failures for days)';

COMMENT ON COLUMN control.webhook_endpoints.judged_since IS 'what came before says nothing about it: it was created, enabled or given its URL then';

COMMENT ON COLUMN control.webhook_endpoints.style IS 'ops: X-OpsIQ-Signature and its like, too';

CREATE TABLE control.workflow_versions (
    account text NOT NULL,
    workflow uuid NOT NULL,
    n integer NOT NULL,
    name text NOT NULL,
    definition text NOT NULL,
    published_at timestamp with time zone NOT NULL
);

CREATE TABLE control.workflows (
    account text NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    description text,
    status text NOT NULL,
    definition text NOT NULL,
    draft bytea,
    is_changed boolean NOT NULL,
    published integer DEFAULT 0 NOT NULL,
    compiled bytea,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT workflows_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'published'::text])))
);

COMMENT ON COLUMN control.workflows.version IS 'of the row: one more with each change';

COMMENT ON COLUMN control.workflows.definition IS 'JSON as it was saved last';

COMMENT ON COLUMN control.workflows.draft IS 'what a test of it pins; null = it has no nodes yet';

COMMENT ON COLUMN control.workflows.is_changed IS 'what was saved last is not what was published last';

COMMENT ON COLUMN control.workflows.published IS 'its newest published version; 0 = none';

COMMENT ON COLUMN control.workflows.compiled IS 'the JSON that a run of that version pins';

CREATE TABLE read.account_book (
    partition integer NOT NULL,
    bucket bigint NOT NULL,
    decided bit(4096)
)
WITH (fillfactor='50');

COMMENT ON COLUMN read.account_book.bucket IS 'offsets from bucket * 4096 on';

COMMENT ON COLUMN read.account_book.decided IS 'the first bit is the lowest offset; null = all of them';

CREATE TABLE read.audit (
    account text NOT NULL,
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    role text,
    action text,
    version bigint,
    run text,
    confirmation text,
    prompt text,
    rendered text,
    response text,
    outcome text,
    error_code text,
    error_message text,
    duration_ms double precision,
    params bytea,
    result bytea
);

COMMENT ON COLUMN read.audit.rendered IS 'the prompt as it was put to what resolved it';

COMMENT ON COLUMN read.audit.response IS 'what that said, as it was said';

CREATE TABLE read.dead_letters (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    account text NOT NULL,
    at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    source_topic text,
    source_partition integer,
    source_offset bigint,
    key bytea,
    value bytea,
    headers jsonb NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE read.dead_letters_default (
    topic text CONSTRAINT dead_letters_topic_not_null NOT NULL,
    partition integer CONSTRAINT dead_letters_partition_not_null NOT NULL,
    "offset" bigint CONSTRAINT dead_letters_offset_not_null NOT NULL,
    account text CONSTRAINT dead_letters_account_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT dead_letters_at_not_null NOT NULL,
    reason text CONSTRAINT dead_letters_reason_not_null NOT NULL,
    source_topic text,
    source_partition integer,
    source_offset bigint,
    key bytea,
    value bytea,
    headers jsonb CONSTRAINT dead_letters_headers_not_null NOT NULL
);

CREATE TABLE read.deliveries (
    id uuid NOT NULL,
    account text NOT NULL,
    endpoint uuid NOT NULL,
    event uuid NOT NULL,
    subscription uuid,
    type text,
    status text NOT NULL,
    attempts integer NOT NULL,
    next_attempt_at timestamp with time zone,
    last_status integer,
    error_code text,
    error_message text,
    body bytea,
    created_at timestamp with time zone,
    ended_at timestamp with time zone
)
PARTITION BY RANGE (id);

COMMENT ON COLUMN read.deliveries.status IS 'queued, stale, retrying, dead_lettered, succeeded, failed or cancelled; the first of the last three stands';

CREATE TABLE read.deliveries_default (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    account text CONSTRAINT deliveries_account_not_null NOT NULL,
    endpoint uuid CONSTRAINT deliveries_endpoint_not_null NOT NULL,
    event uuid CONSTRAINT deliveries_event_not_null NOT NULL,
    subscription uuid,
    type text,
    status text CONSTRAINT deliveries_status_not_null NOT NULL,
    attempts integer CONSTRAINT deliveries_attempts_not_null NOT NULL,
    next_attempt_at timestamp with time zone,
    last_status integer,
    error_code text,
    error_message text,
    body bytea,
    created_at timestamp with time zone,
    ended_at timestamp with time zone
);

CREATE TABLE read.delivery_attempts (
    delivery uuid NOT NULL,
    n integer NOT NULL,
    account text NOT NULL,
    outcome text NOT NULL,
    at timestamp with time zone NOT NULL,
    duration_ms double precision NOT NULL,
    url text NOT NULL,
    status integer,
    error_code text,
    error_message text,
    response text,
    retry_at timestamp with time zone
)
PARTITION BY RANGE (delivery);

CREATE TABLE read.delivery_attempts_default (
    delivery uuid CONSTRAINT delivery_attempts_delivery_not_null NOT NULL,
    n integer CONSTRAINT delivery_attempts_n_not_null NOT NULL,
    account text CONSTRAINT delivery_attempts_account_not_null NOT NULL,
    outcome text CONSTRAINT delivery_attempts_outcome_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT delivery_attempts_at_not_null NOT NULL,
    duration_ms double precision CONSTRAINT delivery_attempts_duration_ms_not_null NOT NULL,
    url text CONSTRAINT delivery_attempts_url_not_null NOT NULL,
    status integer,
    error_code text,
    error_message text,
    response text,
    retry_at timestamp with time zone
);

CREATE TABLE read.entities (
    account text NOT NULL,
    kind text NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    at timestamp with time zone NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    erased text COLLATE pg_catalog."C",
    members jsonb NOT NULL,
    event uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL
)
WITH (fillfactor='70');

COMMENT ON COLUMN read.entities.id IS 'the sender''s own';

COMMENT ON COLUMN read.entities.at IS 'of the first event about it';

COMMENT ON COLUMN read.entities.created_ms IS 'as the sender says, else when the first event about it came';

COMMENT ON COLUMN read.entities.erased IS 'the place of the last event that erased it';

COMMENT ON COLUMN read.entities.event IS 'the last one about it';

CREATE TABLE read.event_matches (
    event uuid NOT NULL,
    kind text NOT NULL,
    child uuid NOT NULL,
    account text NOT NULL,
    subscription uuid,
    endpoint uuid
)
PARTITION BY RANGE (event);

COMMENT ON COLUMN read.event_matches.kind IS 'run or delivery';

CREATE TABLE read.event_matches_default (
    event uuid CONSTRAINT event_matches_event_not_null NOT NULL,
    kind text CONSTRAINT event_matches_kind_not_null NOT NULL,
    child uuid CONSTRAINT event_matches_child_not_null NOT NULL,
    account text CONSTRAINT event_matches_account_not_null NOT NULL,
    subscription uuid,
    endpoint uuid
);

CREATE TABLE read.event_outcomes (
    event uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    account text NOT NULL,
    outcome text NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    duplicate_of uuid,
    reason text
)
PARTITION BY RANGE (event);

CREATE TABLE read.event_outcomes_default (
    event uuid CONSTRAINT event_outcomes_event_not_null NOT NULL,
    partition integer CONSTRAINT event_outcomes_partition_not_null NOT NULL,
    "offset" bigint CONSTRAINT event_outcomes_offset_not_null NOT NULL,
    account text CONSTRAINT event_outcomes_account_not_null NOT NULL,
    outcome text CONSTRAINT event_outcomes_outcome_not_null NOT NULL,
    decided_at timestamp with time zone CONSTRAINT event_outcomes_decided_at_not_null NOT NULL,
    duplicate_of uuid,
    reason text
);

CREATE TABLE read.events (
    id uuid NOT NULL,
    account text NOT NULL,
    identifier text NOT NULL,
    received_at timestamp with time zone NOT NULL,
    "timestamp" text,
    unique_key text,
    ordering_key text,
    replay text,
    hops integer NOT NULL,
    extensions jsonb,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    properties bytea NOT NULL,
    properties_json jsonb,
    json_refused text
)
PARTITION BY RANGE (id);

COMMENT ON COLUMN read.events.properties IS 'exactly the bytes received';

COMMENT ON COLUMN read.events.properties_json IS 'a cleaned copy for searching; null with the reason in json_refused';

CREATE TABLE read.events_default (
    id uuid CONSTRAINT events_id_not_null NOT NULL,
    account text CONSTRAINT events_account_not_null NOT NULL,
    identifier text CONSTRAINT events_identifier_not_null NOT NULL,
    received_at timestamp with time zone CONSTRAINT events_received_at_not_null NOT NULL,
    "timestamp" text,
    unique_key text,
    ordering_key text,
    replay text,
    hops integer CONSTRAINT events_hops_not_null NOT NULL,
    extensions jsonb,
    partition integer CONSTRAINT events_partition_not_null NOT NULL,
    "offset" bigint CONSTRAINT events_offset_not_null NOT NULL,
    properties bytea CONSTRAINT events_properties_not_null NOT NULL,
    properties_json jsonb,
    json_refused text
);

CREATE TABLE read.payloads (
    owner uuid NOT NULL,
    digest bytea NOT NULL,
    account text NOT NULL,
    bytes bytea NOT NULL
)
PARTITION BY RANGE (owner);

COMMENT ON COLUMN read.payloads.owner IS 'the event, run or delivery: the day of its id is the payload''s';

CREATE TABLE read.payloads_default (
    owner uuid CONSTRAINT payloads_owner_not_null NOT NULL,
    digest bytea CONSTRAINT payloads_digest_not_null NOT NULL,
    account text CONSTRAINT payloads_account_not_null NOT NULL,
    bytes bytea CONSTRAINT payloads_bytes_not_null NOT NULL
);

CREATE TABLE read.positions (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    record_time timestamp with time zone
);

CREATE TABLE read.receipt_days (
    day timestamp with time zone NOT NULL,
    accounts bigint NOT NULL,
    facts bigint NOT NULL,
    ends jsonb NOT NULL,
    at timestamp with time zone NOT NULL
);

COMMENT ON COLUMN read.receipt_days.ends IS '[topic, partition, offset] at which the next day begins';

CREATE TABLE read.receipt_leaves (
    account text NOT NULL,
    day timestamp with time zone NOT NULL,
    first bigint NOT NULL,
    root bytea NOT NULL,
    first_id bytea NOT NULL,
    last_id bytea NOT NULL,
    entries bytea NOT NULL,
    at timestamp with time zone NOT NULL
);

COMMENT ON COLUMN read.receipt_leaves.first IS 'the index of its first leaf';

CREATE TABLE read.receipt_roots (
    account text NOT NULL,
    day timestamp with time zone NOT NULL,
    leaves bigint NOT NULL,
    root bytea NOT NULL,
    previous bytea NOT NULL,
    chain bytea NOT NULL,
    other_chain bytea,
    at timestamp with time zone NOT NULL
);

COMMENT ON COLUMN read.receipt_roots.day IS 'its start';

CREATE TABLE read.receipt_seeds (
    "offset" bigint NOT NULL,
    seed bytea NOT NULL,
    at timestamp with time zone NOT NULL
);

COMMENT ON COLUMN read.receipt_seeds.seed IS 'what salts follow from: never shown. The one with the least offset stands';

CREATE TABLE read.runs (
    id uuid NOT NULL,
    account text NOT NULL,
    status text NOT NULL,
    plan uuid,
    plan_kind text,
    plan_version integer,
    plan_name text,
    subscription uuid,
    event uuid,
    identifier text,
    requested_by text,
    input bytea,
    output bytea,
    error_code text,
    error_message text,
    created_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    flow_key text,
    waiting_reason text,
    waiting_until timestamp with time zone,
    bundle bytea,
    absorbed_into uuid
)
PARTITION BY RANGE (id);

COMMENT ON COLUMN read.runs.status IS 'queued, stale, running, dead_lettered, completed, failed, cancelled, timed_out or absorbed; the first of the last five stands';

COMMENT ON COLUMN read.runs.waiting_reason IS 'what held it back as last told; it waits while it is queued';

COMMENT ON COLUMN read.runs.bundle IS 'the list that its input became; input is its own event''s';

CREATE TABLE read.runs_default (
    id uuid CONSTRAINT runs_id_not_null NOT NULL,
    account text CONSTRAINT runs_account_not_null NOT NULL,
    status text CONSTRAINT runs_status_not_null NOT NULL,
    plan uuid,
    plan_kind text,
    plan_version integer,
    plan_name text,
    subscription uuid,
    event uuid,
    identifier text,
    requested_by text,
    input bytea,
    output bytea,
    error_code text,
    error_message text,
    created_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    flow_key text,
    waiting_reason text,
    waiting_until timestamp with time zone,
    bundle bytea,
    absorbed_into uuid
);

CREATE TABLE read.step_attempts (
    run uuid NOT NULL,
    node text NOT NULL,
    attempt integer NOT NULL,
    account text NOT NULL,
    status text NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    duration_ms double precision,
    error_code text,
    error_message text,
    retry_at timestamp with time zone
)
PARTITION BY RANGE (run);

COMMENT ON COLUMN read.step_attempts.status IS 'running, completed or failed';

CREATE TABLE read.step_attempts_default (
    run uuid CONSTRAINT step_attempts_run_not_null NOT NULL,
    node text CONSTRAINT step_attempts_node_not_null NOT NULL,
    attempt integer CONSTRAINT step_attempts_attempt_not_null NOT NULL,
    account text CONSTRAINT step_attempts_account_not_null NOT NULL,
    status text CONSTRAINT step_attempts_status_not_null NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    duration_ms double precision,
    error_code text,
    error_message text,
    retry_at timestamp with time zone
);

CREATE TABLE read.steps (
    run uuid NOT NULL,
    node text NOT NULL,
    account text NOT NULL,
    type text,
    status text NOT NULL,
    attempts integer NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    retry_at timestamp with time zone,
    error_code text,
    error_message text,
    output bytea
)
PARTITION BY RANGE (run);

COMMENT ON COLUMN read.steps.status IS 'running, retrying, completed, failed or skipped';

CREATE TABLE read.steps_default (
    run uuid CONSTRAINT steps_run_not_null NOT NULL,
    node text CONSTRAINT steps_node_not_null NOT NULL,
    account text CONSTRAINT steps_account_not_null NOT NULL,
    type text,
    status text CONSTRAINT steps_status_not_null NOT NULL,
    attempts integer CONSTRAINT steps_attempts_not_null NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    retry_at timestamp with time zone,
    error_code text,
    error_message text,
    output bytea
);

ALTER TABLE ONLY read.dead_letters ATTACH PARTITION read.dead_letters_default DEFAULT;

ALTER TABLE ONLY read.deliveries ATTACH PARTITION read.deliveries_default DEFAULT;

ALTER TABLE ONLY read.delivery_attempts ATTACH PARTITION read.delivery_attempts_default DEFAULT;

ALTER TABLE ONLY read.event_matches ATTACH PARTITION read.event_matches_default DEFAULT;

ALTER TABLE ONLY read.event_outcomes ATTACH PARTITION read.event_outcomes_default DEFAULT;

ALTER TABLE ONLY read.events ATTACH PARTITION read.events_default DEFAULT;

ALTER TABLE ONLY read.payloads ATTACH PARTITION read.payloads_default DEFAULT;

ALTER TABLE ONLY read.runs ATTACH PARTITION read.runs_default DEFAULT;

ALTER TABLE ONLY read.step_attempts ATTACH PARTITION read.step_attempts_default DEFAULT;

ALTER TABLE ONLY read.steps ATTACH PARTITION read.steps_default DEFAULT;

ALTER TABLE ONLY control.accounts
    ADD CONSTRAINT accounts_name_key UNIQUE (name);

ALTER TABLE ONLY control.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY control.accounts
    ADD CONSTRAINT accounts_test_of_key UNIQUE (test_of);

ALTER TABLE ONLY control.action_versions
    ADD CONSTRAINT action_versions_pkey PRIMARY KEY (account, action, version);

ALTER TABLE ONLY control.actions
    ADD CONSTRAINT actions_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.api_keys
    ADD CONSTRAINT api_keys_digest_key UNIQUE (digest);

ALTER TABLE ONLY control.api_keys
    ADD CONSTRAINT api_keys_old_digest_key UNIQUE (old_digest);

ALTER TABLE ONLY control.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.confirmations
    ADD CONSTRAINT confirmations_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.connections
    ADD CONSTRAINT connections_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.connections
    ADD CONSTRAINT connections_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY control.control_outbox
    ADD CONSTRAINT control_outbox_kind_account_aggregate_version_key UNIQUE (kind, account, aggregate, version);

ALTER TABLE ONLY control.control_outbox
    ADD CONSTRAINT control_outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY control.credentials
    ADD CONSTRAINT credentials_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.disablings
    ADD CONSTRAINT disablings_pkey PRIMARY KEY (account, endpoint, disabled_at);

ALTER TABLE ONLY control.dropped_days
    ADD CONSTRAINT dropped_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY control.forms
    ADD CONSTRAINT forms_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.forms
    ADD CONSTRAINT forms_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY control.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account, api_key, key);

ALTER TABLE ONLY control.integrations
    ADD CONSTRAINT integrations_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.people
    ADD CONSTRAINT people_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.plans
    ADD CONSTRAINT plans_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.redrives
    ADD CONSTRAINT redrives_pkey PRIMARY KEY (account, topic, partition, "offset", key);

ALTER TABLE ONLY control.replays
    ADD CONSTRAINT replays_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.safe_fields
    ADD CONSTRAINT safe_fields_pkey PRIMARY KEY (account, kind);

ALTER TABLE ONLY control.spent_nonces
    ADD CONSTRAINT spent_nonces_pkey PRIMARY KEY (account, api_key, nonce);

ALTER TABLE ONLY control.submissions
    ADD CONSTRAINT submissions_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY control.workflow_versions
    ADD CONSTRAINT workflow_versions_pkey PRIMARY KEY (account, workflow, n);

ALTER TABLE ONLY control.workflows
    ADD CONSTRAINT workflows_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY read.account_book
    ADD CONSTRAINT account_book_pkey PRIMARY KEY (partition, bucket);

ALTER TABLE ONLY read.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (account, id);

ALTER TABLE ONLY read.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (topic, partition, "offset", at);

ALTER TABLE ONLY read.dead_letters_default
    ADD CONSTRAINT dead_letters_default_pkey PRIMARY KEY (topic, partition, "offset", at);

ALTER TABLE ONLY read.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.deliveries_default
    ADD CONSTRAINT deliveries_default_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.delivery_attempts
    ADD CONSTRAINT delivery_attempts_pkey PRIMARY KEY (delivery, n);

ALTER TABLE ONLY read.delivery_attempts_default
    ADD CONSTRAINT delivery_attempts_default_pkey PRIMARY KEY (delivery, n);

ALTER TABLE ONLY read.entities
    ADD CONSTRAINT entities_pkey PRIMARY KEY (account, kind, id);

ALTER TABLE ONLY read.event_matches
    ADD CONSTRAINT event_matches_pkey PRIMARY KEY (event, kind, child);

ALTER TABLE ONLY read.event_matches_default
    ADD CONSTRAINT event_matches_default_pkey PRIMARY KEY (event, kind, child);

ALTER TABLE ONLY read.event_outcomes
    ADD CONSTRAINT event_outcomes_pkey PRIMARY KEY (event, partition, "offset");

ALTER TABLE ONLY read.event_outcomes_default
    ADD CONSTRAINT event_outcomes_default_pkey PRIMARY KEY (event, partition, "offset");

ALTER TABLE ONLY read.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.events_default
    ADD CONSTRAINT events_default_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.payloads
    ADD CONSTRAINT payloads_pkey PRIMARY KEY (owner, digest);

ALTER TABLE ONLY read.payloads_default
    ADD CONSTRAINT payloads_default_pkey PRIMARY KEY (owner, digest);

ALTER TABLE ONLY read.positions
    ADD CONSTRAINT positions_pkey PRIMARY KEY (topic, partition);

ALTER TABLE ONLY read.receipt_days
    ADD CONSTRAINT receipt_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY read.receipt_leaves
    ADD CONSTRAINT receipt_leaves_pkey PRIMARY KEY (account, day, first);

ALTER TABLE ONLY read.receipt_roots
    ADD CONSTRAINT receipt_roots_pkey PRIMARY KEY (account, day);

ALTER TABLE ONLY read.receipt_seeds
    ADD CONSTRAINT receipt_seeds_pkey PRIMARY KEY ("offset");

ALTER TABLE ONLY read.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.runs_default
    ADD CONSTRAINT runs_default_pkey PRIMARY KEY (id);

ALTER TABLE ONLY read.step_attempts
    ADD CONSTRAINT step_attempts_pkey PRIMARY KEY (run, node, attempt);

ALTER TABLE ONLY read.step_attempts_default
    ADD CONSTRAINT step_attempts_default_pkey PRIMARY KEY (run, node, attempt);

ALTER TABLE ONLY read.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (run, node);

ALTER TABLE ONLY read.steps_default
    ADD CONSTRAINT steps_default_pkey PRIMARY KEY (run, node);

CREATE UNIQUE INDEX actions_account_name_idx ON control.actions USING btree (account, name) WHERE (deleted_at IS NULL);

CREATE INDEX api_keys_account_person_idx ON control.api_keys USING btree (account, person) WHERE (person IS NOT NULL);

CREATE INDEX confirmations_coalesce_idx ON control.confirmations USING btree (COALESCE(decided_at, created_at)) WHERE (told IS DISTINCT FROM state);

CREATE INDEX connections_account_id_idx ON control.connections USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX control_outbox_id_idx ON control.control_outbox USING btree (id) WHERE (published_position IS NULL);

CREATE INDEX credentials_account_id_idx ON control.credentials USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE UNIQUE INDEX credentials_account_name_idx ON control.credentials USING btree (account, name) WHERE (deleted_at IS NULL);

CREATE INDEX disablings_disabled_at_idx ON control.disablings USING btree (disabled_at) WHERE (told_at IS NULL);

CREATE INDEX forms_account_id_idx ON control.forms USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX idempotency_keys_account_asked_at_idx ON control.idempotency_keys USING btree (account, asked_at);

CREATE INDEX integrations_account_credential_idx ON control.integrations USING btree (account, credential) WHERE (deleted_at IS NULL);

CREATE INDEX integrations_account_id_idx ON control.integrations USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX people_account_id_idx ON control.people USING btree (account, id DESC) WHERE (removed_at IS NULL);

CREATE UNIQUE INDEX people_account_lower_idx ON control.people USING btree (account, lower(email)) WHERE (removed_at IS NULL);

CREATE INDEX plans_account_kind_id_idx ON control.plans USING btree (account, kind, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX replays_id_idx ON control.replays USING btree (id) WHERE (ended_at IS NULL);

CREATE INDEX spent_nonces_account_valid_until_idx ON control.spent_nonces USING btree (account, valid_until);

CREATE INDEX submissions_account_form_id_idx ON control.submissions USING btree (account, form, id DESC);

CREATE UNIQUE INDEX submissions_account_form_nonce_idx ON control.submissions USING btree (account, form, nonce) WHERE (nonce IS NOT NULL);

CREATE INDEX submissions_created_at_idx ON control.submissions USING btree (created_at) WHERE (told_at IS NULL);

CREATE INDEX subscriptions_account_id_idx ON control.subscriptions USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX subscriptions_account_target_id_idx ON control.subscriptions USING btree (account, target_id) WHERE (deleted_at IS NULL);

CREATE INDEX webhook_endpoints_account_id_idx ON control.webhook_endpoints USING btree (account, id DESC) WHERE (deleted_at IS NULL);

CREATE INDEX webhook_endpoints_old_secret_until_idx ON control.webhook_endpoints USING btree (old_secret_until) WHERE (old_secret_until IS NOT NULL);

CREATE INDEX audit_account_at_id_idx ON read.audit USING btree (account, at DESC, id DESC);

CREATE INDEX dead_letters_account_at_topic_partition_offset_idx ON ONLY read.dead_letters USING btree (account, at DESC, topic, partition, "offset" DESC);

CREATE INDEX dead_letters_default_account_at_topic_partition_offset_idx ON read.dead_letters_default USING btree (account, at DESC, topic, partition, "offset" DESC);

CREATE INDEX deliveries_account_created_at_id_idx ON ONLY read.deliveries USING btree (account, created_at DESC, id DESC);

CREATE INDEX deliveries_account_status_created_at_id_idx ON ONLY read.deliveries USING btree (account, status, created_at DESC, id DESC);

CREATE INDEX deliveries_default_account_created_at_id_idx ON read.deliveries_default USING btree (account, created_at DESC, id DESC);

CREATE INDEX deliveries_default_account_status_created_at_id_idx ON read.deliveries_default USING btree (account, status, created_at DESC, id DESC);

CREATE INDEX deliveries_ended_at_idx ON ONLY read.deliveries USING btree (ended_at) WHERE ((error_code = 'http_410'::text) AND (status = 'failed'::text));

CREATE INDEX deliveries_default_ended_at_idx ON read.deliveries_default USING btree (ended_at) WHERE ((error_code = 'http_410'::text) AND (status = 'failed'::text));

CREATE INDEX deliveries_endpoint_created_at_id_idx ON ONLY read.deliveries USING btree (endpoint, created_at DESC, id DESC);

CREATE INDEX deliveries_default_endpoint_created_at_id_idx ON read.deliveries_default USING btree (endpoint, created_at DESC, id DESC);

CREATE INDEX deliveries_event_idx ON ONLY read.deliveries USING btree (event);

CREATE INDEX deliveries_default_event_idx ON read.deliveries_default USING btree (event);

CREATE INDEX deliveries_subscription_created_at_id_idx ON ONLY read.deliveries USING btree (subscription, created_at DESC, id DESC) WHERE (subscription IS NOT NULL);

CREATE INDEX deliveries_default_subscription_created_at_id_idx ON read.deliveries_default USING btree (subscription, created_at DESC, id DESC) WHERE (subscription IS NOT NULL);

CREATE INDEX entities_by_age ON read.entities USING btree (account, kind, created_ms DESC, id DESC) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_assignee ON read.entities USING btree (account, kind, "left"(((members -> 'assignee'::text) ->> 1), 64), created_ms DESC, id DESC) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_customer ON read.entities USING btree (account, kind, (((members -> 'customer_id'::text) ->> 1)), created_ms DESC, id DESC) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_priority ON read.entities USING btree (account, kind, "left"(((members -> 'priority'::text) ->> 1), 64), created_ms DESC, id DESC) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_status ON read.entities USING btree (account, kind, (((members -> 'status'::text) ->> 1)), created_ms DESC, id DESC) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_update ON read.entities USING btree (account, kind, updated_ms) WHERE (members <> '{}'::jsonb);

CREATE INDEX entities_by_words ON read.entities USING gin (((array_to_tsvector(ARRAY[account, kind]) || to_tsvector('simple'::regconfig, ((((((((COALESCE(((members -> 'name'::text) ->> 1), ''::text) || ' '::text) || COALESCE(((members -> 'email'::text) ->> 1), ''::text)) || ' '::text) || COALESCE(((members -> 'company'::text) ->> 1), ''::text)) || ' '::text) || COALESCE(((members -> 'number'::text) ->> 1), ''::text)) || ' '::text) || COALESCE(((members -> 'subject'::text) ->> 1), ''::text))))));

CREATE INDEX event_outcomes_decided_at_idx ON ONLY read.event_outcomes USING brin (decided_at) WITH (pages_per_range='16', autosummarize='on');

CREATE INDEX event_outcomes_default_decided_at_idx ON read.event_outcomes_default USING brin (decided_at) WITH (pages_per_range='16', autosummarize='on');

CREATE INDEX events_account_identifier_received_at_id_idx ON ONLY read.events USING btree (account, identifier, received_at DESC, id DESC);

CREATE INDEX events_account_received_at_id_idx ON ONLY read.events USING btree (account, received_at DESC, id DESC);

CREATE INDEX events_default_account_identifier_received_at_id_idx ON read.events_default USING btree (account, identifier, received_at DESC, id DESC);

CREATE INDEX events_default_account_received_at_id_idx ON read.events_default USING btree (account, received_at DESC, id DESC);

CREATE INDEX receipt_leaves_account_day_first_id_idx ON read.receipt_leaves USING btree (account, day, first_id);

CREATE INDEX receipt_roots_day_account_idx ON read.receipt_roots USING btree (day, account);

CREATE INDEX receipt_roots_other_chain_idx ON read.receipt_roots USING btree (other_chain) WHERE (other_chain IS NOT NULL);

CREATE INDEX receipt_roots_root_idx ON read.receipt_roots USING btree (root);

CREATE INDEX runs_account_created_at_id_idx ON ONLY read.runs USING btree (account, created_at DESC, id DESC);

CREATE INDEX runs_account_status_created_at_id_idx ON ONLY read.runs USING btree (account, status, created_at DESC, id DESC);

CREATE INDEX runs_default_account_created_at_id_idx ON read.runs_default USING btree (account, created_at DESC, id DESC);

CREATE INDEX runs_default_account_status_created_at_id_idx ON read.runs_default USING btree (account, status, created_at DESC, id DESC);

CREATE INDEX runs_event_idx ON ONLY read.runs USING btree (event) WHERE (event IS NOT NULL);

CREATE INDEX runs_default_event_idx ON read.runs_default USING btree (event) WHERE (event IS NOT NULL);

CREATE INDEX runs_plan_status_created_at_id_idx ON ONLY read.runs USING btree (plan, status, created_at DESC, id DESC) WHERE (plan IS NOT NULL);

CREATE INDEX runs_default_plan_status_created_at_id_idx ON read.runs_default USING btree (plan, status, created_at DESC, id DESC) WHERE (plan IS NOT NULL);

CREATE INDEX runs_subscription_created_at_id_idx ON ONLY read.runs USING btree (subscription, created_at DESC, id DESC) WHERE (subscription IS NOT NULL);

CREATE INDEX runs_default_subscription_created_at_id_idx ON read.runs_default USING btree (subscription, created_at DESC, id DESC) WHERE (subscription IS NOT NULL);

ALTER INDEX read.dead_letters_account_at_topic_partition_offset_idx ATTACH PARTITION read.dead_letters_default_account_at_topic_partition_offset_idx;

ALTER INDEX read.dead_letters_pkey ATTACH PARTITION read.dead_letters_default_pkey;

ALTER INDEX read.deliveries_account_created_at_id_idx ATTACH PARTITION read.deliveries_default_account_created_at_id_idx;

ALTER INDEX read.deliveries_account_status_created_at_id_idx ATTACH PARTITION read.deliveries_default_account_status_created_at_id_idx;

ALTER INDEX read.deliveries_ended_at_idx ATTACH PARTITION read.deliveries_default_ended_at_idx;

ALTER INDEX read.deliveries_endpoint_created_at_id_idx ATTACH PARTITION read.deliveries_default_endpoint_created_at_id_idx;

ALTER INDEX read.deliveries_event_idx ATTACH PARTITION read.deliveries_default_event_idx;

ALTER INDEX read.deliveries_pkey ATTACH PARTITION read.deliveries_default_pkey;

ALTER INDEX read.deliveries_subscription_created_at_id_idx ATTACH PARTITION read.deliveries_default_subscription_created_at_id_idx;

ALTER INDEX read.delivery_attempts_pkey ATTACH PARTITION read.delivery_attempts_default_pkey;

ALTER INDEX read.event_matches_pkey ATTACH PARTITION read.event_matches_default_pkey;

ALTER INDEX read.event_outcomes_decided_at_idx ATTACH PARTITION read.event_outcomes_default_decided_at_idx;

ALTER INDEX read.event_outcomes_pkey ATTACH PARTITION read.event_outcomes_default_pkey;

ALTER INDEX read.events_account_identifier_received_at_id_idx ATTACH PARTITION read.events_default_account_identifier_received_at_id_idx;

ALTER INDEX read.events_account_received_at_id_idx ATTACH PARTITION read.events_default_account_received_at_id_idx;

ALTER INDEX read.events_pkey ATTACH PARTITION read.events_default_pkey;

ALTER INDEX read.payloads_pkey ATTACH PARTITION read.payloads_default_pkey;

ALTER INDEX read.runs_account_created_at_id_idx ATTACH PARTITION read.runs_default_account_created_at_id_idx;

ALTER INDEX read.runs_account_status_created_at_id_idx ATTACH PARTITION read.runs_default_account_status_created_at_id_idx;

ALTER INDEX read.runs_event_idx ATTACH PARTITION read.runs_default_event_idx;

ALTER INDEX read.runs_pkey ATTACH PARTITION read.runs_default_pkey;

ALTER INDEX read.runs_plan_status_created_at_id_idx ATTACH PARTITION read.runs_default_plan_status_created_at_id_idx;

ALTER INDEX read.runs_subscription_created_at_id_idx ATTACH PARTITION read.runs_default_subscription_created_at_id_idx;

ALTER INDEX read.step_attempts_pkey ATTACH PARTITION read.step_attempts_default_pkey;

ALTER INDEX read.steps_pkey ATTACH PARTITION read.steps_default_pkey;

CREATE TRIGGER wake_relay AFTER INSERT ON control.control_outbox FOR EACH STATEMENT EXECUTE FUNCTION control.wake_relay();

ALTER TABLE ONLY control.accounts
    ADD CONSTRAINT accounts_test_of_fkey FOREIGN KEY (test_of) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.action_versions
    ADD CONSTRAINT action_versions_account_action_fkey FOREIGN KEY (account, action) REFERENCES control.actions(account, id);

ALTER TABLE ONLY control.actions
    ADD CONSTRAINT actions_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.api_keys
    ADD CONSTRAINT api_keys_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.api_keys
    ADD CONSTRAINT api_keys_account_person_fkey FOREIGN KEY (account, person) REFERENCES control.people(account, id);

ALTER TABLE ONLY control.confirmations
    ADD CONSTRAINT confirmations_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.connections
    ADD CONSTRAINT connections_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.credentials
    ADD CONSTRAINT credentials_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.disablings
    ADD CONSTRAINT disablings_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.forms
    ADD CONSTRAINT forms_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.integrations
    ADD CONSTRAINT integrations_account_credential_fkey FOREIGN KEY (account, credential) REFERENCES control.credentials(account, id);

ALTER TABLE ONLY control.people
    ADD CONSTRAINT people_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.plans
    ADD CONSTRAINT plans_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.redrives
    ADD CONSTRAINT redrives_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.replays
    ADD CONSTRAINT replays_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.safe_fields
    ADD CONSTRAINT safe_fields_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.submissions
    ADD CONSTRAINT submissions_account_form_fkey FOREIGN KEY (account, form) REFERENCES control.forms(account, id);

ALTER TABLE ONLY control.subscriptions
    ADD CONSTRAINT subscriptions_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);

ALTER TABLE ONLY control.workflow_versions
    ADD CONSTRAINT workflow_versions_account_workflow_fkey FOREIGN KEY (account, workflow) REFERENCES control.workflows(account, id);

ALTER TABLE ONLY control.workflows
    ADD CONSTRAINT workflows_account_fkey FOREIGN KEY (account) REFERENCES control.accounts(id);
