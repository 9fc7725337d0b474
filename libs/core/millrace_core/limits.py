"""Every bound of Millrace in one place, and the relations between them, checked when this is imported.

Queues, batches, retries, time-outs and bodies are bounded here and nowhere else. Units stand last in the name.
"""

# ── what a producer may post ────────────────────────────────────────────────────────────────────────────────────────
BODY_BYTES_MAX = 1_048_576
BATCH_BODY_BYTES_MAX = 5 * 1_048_576
# A batch up to here is parsed in one step (a millisecond or two); single posts wait for it.
BATCH_AT_ONCE_BYTES_MAX = 262_144
# So long a body may take to arrive, and so much all those of an API's requests under way may be.
BODY_READ_S_MAX = 30.0
BODIES_HELD_BYTES_MAX = 64 * 1_048_576
BODIES_RETRY_AFTER_S = 1
BATCH_ITEMS_MAX = 1_000
JSON_DEPTH_MAX = 128
UNIQUE_KEY_CHARS_MAX = 256
ORDERING_KEY_CHARS_MAX = 256
TIMESTAMP_AHEAD_MS_MAX = 24 * 3_600_000
HOPS_MAX = 32

# ── what crosses the log ────────────────────────────────────────────────────────────────────────────────────────────
RECORD_BYTES_MAX = 2 * 1_048_576
# The client counts key, headers and framing too; what may be asked of it leaves room for them.
RECORD_VALUE_BYTES_MAX = RECORD_BYTES_MAX - 16_384
# A dead letter is the refused record as it was, and headers that tell why.
DEAD_LETTER_BYTES_MAX = RECORD_BYTES_MAX + 65_536
DEAD_LETTER_REASON_CHARS_MAX = 1_000

# Ids, accounts and the like, wherever one is read from the log; and what is copied from a record's headers.
ID_CHARS_MAX = 256
HEADER_BYTES_MAX = 1_024

# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────
CONTRACT_BYTES_MAX = 65_536
SCHEMA_BYTES_MAX = 49_152
SCHEMA_PATTERN_BYTES_MAX = 1_048_576
SCHEMAS_KEPT_MAX = 512
ACTION_NAME_CHARS_MAX = 128
ACTION_TEXT_CHARS_MAX = 1_000
ACTION_SYNONYMS_MAX = 50
ACTION_PARAMS_BYTES_MAX = 65_536
ACTION_TIMEOUT_S_DEFAULT = 10.0
ACTION_TIMEOUT_S_MAX = 60.0
ACTION_ATTEMPTS = 3
ACTION_RETRY_S = 0.5
ACTION_RETRY_S_MAX = 5.0
# So long a call waits for its action's end; then it is told that it runs, and where to look.
ACTION_WAIT_S_MAX = 20.0
ACTION_POLL_S = 0.02
ACTION_POLL_S_MAX = 0.25
ACTIONS_MAX = 1_000
PROMPT_CHARS_MAX = 2_000
REWORDING_CHARS_MAX = 4_000
REWORDING_TOKENS_MAX = 200
REWORDING_S_MAX = 10.0
AUDIT_CSV_ROWS = 500
CONFIRMATION_S_DEFAULT = 900
CONFIRMATION_S_MIN = 10
CONFIRMATION_S_MAX = 86_400
CONFIRMATIONS_TOLD_AT_ONCE_MAX = 100
CONFIRMATIONS_LOOKED_AT_EVERY_S = 2.0

# ── the gateway ─────────────────────────────────────────────────────────────────────────────────────────────────────
GATEWAY_IN_FLIGHT_MAX = 4_096
GATEWAY_IN_FLIGHT_BYTES_MAX = 64 * 1_048_576
GATEWAY_RETRY_AFTER_S = 1
PRODUCE_TIMEOUT_S = 10.0
CONTROL_LAG_S_MAX = 1.0

# ── processors ──────────────────────────────────────────────────────────────────────────────────────────────────────
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 2.0
TRANSACTION_TIMEOUT_S = 10.0
BATCH_RECORDS_MAX = 1_000
BATCH_HELD_S_MAX = SESSION_TIMEOUT_S
# The least time between two batches read, and between two requests of a producer, at a rate at which it pays in full.
BATCH_GATHER_S = 0.02
PRODUCE_GATHER_S = 0.012
GATHER_FULL_PER_S = 4_000
# So many records need not wait for more: to 64 clients that each await their answer a pause would only be lost time.
PRODUCE_GATHER_RECORDS = 32
# A producer asks for the topics it does not know of no more often.
ROUTING_LEARNED_EVERY_S = 0.5
# The dispatcher's outcomes: the webhook has arrived, and only a place of its account waits for them.
OUTCOME_GATHER_S = 0.03
OUTCOME_GATHER_RECORDS = 64
# Between a commit and the next begin: the broker still completes the previous transaction before that.
TRANSACTION_GATHER_S = 0.003
TRANSACTION_RETRY_BACKOFF_S = 0.002
FACTS_GATHER_S = 0.1
SOURCE_WINDOW_OFFSETS = 10_000
READ_BACK_RECORDS_MAX = 100_000
COMMAND_ID_MEMORY_MS = 24 * 3_600_000
UNIQUE_KEY_WINDOW_MS = 24 * 3_600_000
CONTROL_WAIT_S_MAX = 15.0
SUBSCRIPTION_REACH_BACK_MS = 60_000
RESTART_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)

# ── lanes ───────────────────────────────────────────────────────────────────────────────────────────────────────────
LANES_IN_FLIGHT_MAX = 256
LANES_BUFFERED_MAX = 2_000
# The dispatcher shares these out among accounts; what is more moves to deliveries-overflow, which has the rest of the
# buffer. A partition's: so many open records fit the commit's metadata even if every second one of 2 M is done.
DELIVERIES_BUFFERED_MAX = LANES_BUFFERED_MAX * 3 // 4
DELIVERIES_PARTITION_MAX = 500
# An account is slow when its oldest has waited so long here, or so soon already when the rest will.
OVERFLOW_AFTER_S = 5.0
OVERFLOW_SOON_S = 0.5
OVERFLOW_BUFFERED_MAX = LANES_BUFFERED_MAX // 4
COMMIT_METADATA_BYTES_MAX = 4_096
UNCLEAN_DEATHS_MAX = 3

# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────
WORKFLOWS_MAX = 10_000  # of an account
PLAN_NODES_MAX = 100
PLAN_EDGES_MAX = 1_000
PLAN_BYTES_MAX = 262_144
PLAN_NAME_CHARS_MAX = 256
NODE_ID_CHARS_MAX = 64
BRANCH_CHARS_MAX = 64
PLANS_CACHED_MAX = 1_000
STEP_ATTEMPTS_MAX = 20
STEP_TIMEOUT_S_MAX = 300.0
STEP_OUTPUT_BYTES_MAX = 262_144
STEP_CONTEXT_BYTES_MAX = 1_572_864
EXPRESSION_CHARS_MAX = 4_096
EXPRESSION_NESTING_MAX = 24
# map() and filter() are quadratic in the engine: 20 ms and 15 MB at this length (ADR 0002).
EXPRESSION_WALK_ITEMS_MAX = 1_000
RUN_TIMEOUT_S_MAX = 30 * 86_400.0
# What the orchestrators have asked of the executors for one account and not yet heard of, each partition its part of
# it: less than one executor holds, so that no account can fill it alone, however many partitions there are.
STEPS_RELEASED_MAX = 1_500
STEPS_HELD_IN_MEMORY_MAX = 1_000
RETRY_DELAY_S_MAX = 86_400.0
RETRY_JITTER = 0.1
ERROR_MESSAGE_CHARS_MAX = 1_000
ERROR_CODE_CHARS_MAX = 100

# ── flow control ────────────────────────────────────────────────────────────────────────────────────────────────────
FLOW_KEY_CHARS_MAX = 256
FLOW_PRIORITY_DEFAULT = 100
FLOW_PRIORITY_MAX = 1_000
FLOW_CONCURRENCY_MAX = 10_000
FLOW_THROTTLE_LIMIT_MAX = 1_000_000
FLOW_PERIOD_S_MAX = 30 * 86_400.0
FLOW_WAIT_S_MAX = 7 * 86_400.0
FLOW_BATCH_ITEMS_MAX = 1_000
# All inputs of a list together: what one event may have, so that the run's start fits its record.
FLOW_BATCH_BYTES_MAX = BODY_BYTES_MAX
# All lists that begin in one transaction, about.
FLOW_TURN_BYTES_MAX = 8 * 1_048_576
# Of one subscription. What is more is refused, with a fact that says so.
FLOW_WAITING_MAX = 100_000
FLOW_KEYS_MAX = 100_000
# A throttle remembers what began within its period in at most so many parts, each as late as its latest.
FLOW_THROTTLE_PARTS = 64
# An event that cancels reaches what came before it and is still on its way for so long.
FLOW_CANCEL_KEPT_MS = 600_000
# A wait that ends by no time of its own is told again so often, or it would count as alive for ever.
FLOW_TOLD_EVERY_MS = 24 * 3_600_000

# ── timers ──────────────────────────────────────────────────────────────────────────────────────────────────────────
CLOCK_JUMP_MS_MAX = 30_000
CLOCK_READ_EVERY_S = 1.0
TIMER_AHEAD_MS_MAX = 400 * 86_400_000

# ── webhooks ────────────────────────────────────────────────────────────────────────────────────────────────────────
# Attempt n+1 waits this long after attempt n, jittered: ~33 h in all.
WEBHOOK_RETRY_SCHEDULE_S = (5.0, 30.0, 120.0, 600.0, 1_800.0, 7_200.0, 21_600.0, 86_400.0)
WEBHOOK_RETRY_JITTER = 0.1
WEBHOOK_TIMEOUT_S = 20.0
WEBHOOK_TIMEOUT_S_MAX = 60.0
WEBHOOK_ATTEMPTS_MAX = 20
WEBHOOK_RETRY_AFTER_S_MAX = 86_400.0
RESPONSE_KEPT_BYTES_MAX = 16_384
RESPONSE_READ_BYTES_MAX = 1_048_576
URL_CHARS_MAX = 2_048
ENDPOINT_CONCURRENCY_MAX = 128
CONNECT_TIMEOUT_S = 10.0
# Attempts that fail in a row before an endpoint is spared; then how long until a probe, doubled with each failed one.
BREAKER_STREAK = 10
BREAKER_OPEN_MS = 30_000
BREAKER_OPEN_MS_MAX = 600_000
# Deliveries a second that an endpoint may ask not to be exceeded; then how long, and how many, wait for that in a lane
# before they leave for a timer, and how long they are away at most; and what of a moment missed is made up.
ENDPOINT_RATE_MIN = 0.01
ENDPOINT_RATE_MAX = 10_000.0
RATE_WAIT_S = 1.0
RATE_WAITING_MAX = 50
RATE_AWAY_S_MAX = 600.0
RATE_BURST_S = 0.05
# An endpoint of which every attempt for so long failed, and one of them lately, is disabled; how often it is looked.
ENDPOINT_FAILING_S = 5 * 86_400.0
ENDPOINT_FAILING_LATELY_S = 86_400.0
ENDPOINTS_LOOKED_AT_EVERY_S = 1.0
FAILING_ENDPOINTS_LOOKED_AT_EVERY_S = 3_600.0
ENDPOINTS_PREPARED_MAX = 4_096

# Credentials of steps and integrations. Shorter ones could not be told from other text in an answer.
CREDENTIAL_CHARS_MIN = 8
CREDENTIAL_CHARS_MAX = 4_096
CREDENTIAL_PREFIX_CHARS_MAX = 32
CREDENTIAL_HOSTS_MAX = 20

# Of a call that the API makes while its caller waits: a test of a webhook or an integration.
API_CALL_TIMEOUT_S = 10.0
EGRESS_KEPT_CONNECTIONS_MAX = 512
EGRESS_KEPT_S = 30.0

# ── matching ────────────────────────────────────────────────────────────────────────────────────────────────────────
FILTER_BYTES_MAX = 16_384
FILTER_DEPTH_MAX = 16

# ── replays ─────────────────────────────────────────────────────────────────────────────────────────────────────────
# Of all replays together; each has its share of it, and no more than was asked for.
REPLAY_PER_S_MAX = 2_000
REPLAY_PER_S_DEFAULT = 200
REPLAYS_LIVE_MAX = 5
REPLAY_STEP_S = 0.2
REPLAY_POLL_S = 1.0
REPLAY_PAGE_EVENTS = 1_000
REPLAY_PAGE_BYTES = 8 * 1_048_576
REPLAY_COUNT_S_MAX = 5.0
# The matcher tells a repeated step from a new one for a day: one that lay still longer may not be taken up again.
REPLAY_STILL_MS_MAX = 20 * 3_600_000

# ── customers, tickets and what else events tell of ─────────────────────────────────────────────────────────────────
ENTITY_MEMBERS_TOLD_MAX = 64
ENTITY_VALUE_CHARS_MAX = 4_096
ENTITY_STATUS_CHARS_MAX = 64
ENTITIES_MERGED_AT_ONCE = 1_000
SAFE_FIELDS_MAX = 64
CUSTOMER_SUBSCRIPTIONS_SHOWN_MAX = 20
TICKETS_COUNTED_MAX = 1_000

# ── API keys ────────────────────────────────────────────────────────────────────────────────────────────────────────
KEY_USES_MAX = 10_000
KEY_USES_WRITTEN_EVERY_S = 60.0

# ── forms ───────────────────────────────────────────────────────────────────────────────────────────────────────────
FORM_FIELDS_MAX = 200
FORM_OPTIONS_MAX = 500
FORM_LABEL_CHARS_MAX = 500
FORM_TEXT_CHARS_MAX = 65_536
FORM_PATTERN_CHARS_MAX = 500
FORM_PROBLEMS_SHOWN_MAX = 50
FORM_DATA_MEMBERS_MAX = 5_000
# Client addresses share so many counts of a page's rate: bounded memory, and two of them rarely meet.
FORM_PAGE_COUNTS = 16_384
SUBMISSIONS_TOLD_AT_ONCE_MAX = 100
SUBMISSIONS_LOOKED_AT_EVERY_S = 2.0
# ── connectors ──────────────────────────────────────────────────────────────────────────────────────────────────────
CONNECTIONS_MAX = 50
CONNECTOR_CONFIG_BYTES_MAX = 65_536
CONNECTOR_SECRETS_MAX = 16
CONNECTOR_SECRET_CHARS_MAX = 1_024
CONNECTOR_ERROR_CHARS_MAX = 500
CONNECTOR_EVENTS_MAX = 100
CONNECTOR_DECLARED_MAX = 50
CONNECTOR_DECLARED_BYTES_MAX = 262_144
# Of one call; then its process is ended, and the next call begins another.
CONNECTOR_CALL_S_MAX = 5.0
CONNECTOR_START_S_MAX = 10.0
CONNECTOR_ANSWER_BYTES_MAX = 4 * 1_048_576
CONNECTOR_MEMORY_BYTES_MAX = 512 * 1_048_576
# Addresses of connections share so many counts of their rate: bounded memory, and two of them rarely meet.
CONNECTION_COUNTS = 65_536
# Calls that wait for a connector's process, and those of one account among them.
CONNECTOR_WAITING_MAX = 64
CONNECTOR_WAITING_OF_ACCOUNT_MAX = 16
# So many calls in a row that failed, and it is called failing.
CONNECTOR_FAILING_AFTER = 3

# ── backtests ───────────────────────────────────────────────────────────────────────────────────────────────────────
BACKTEST_DAYS_MAX = 30
BACKTEST_DAYS_DEFAULT = 7
# Of one call, which says where to go on.
BACKTEST_EVENTS_MAX = 200_000
BACKTEST_S_MAX = 5.0
BACKTEST_OTHERS_MAX = 1_000
BACKTEST_SAMPLES_MAX = 10
BACKTEST_RUNS_MEASURED_MAX = 100

# ── dead letters sent again ─────────────────────────────────────────────────────────────────────────────────────────
REDRIVE_LETTERS_MAX = 1_000
REDRIVE_BATCH_LETTERS = 20

# ── the projector ───────────────────────────────────────────────────────────────────────────────────────────────────
# The least time between two commits: this where so many records come in a second, less below, and never less than its
# share (docs/adr/0007).
PROJECTOR_GATHER_S = 1.0
PROJECTOR_GATHER_FULL_PER_S = 12_000
PROJECTOR_GATHER_SHARE_MIN = 0.05
PROJECTOR_RECORDS_MAX = 10_000
# Day partitions are made for ids of these days; the ids of other days share the default partition.
PARTITION_DAYS_BACK = 40
PARTITION_DAYS_AHEAD = 2
# So long a projector believes what it knows of days: a partition may have been dropped by another.
DAYS_KNOWN_MS = 60_000
# Larger payloads lie beside their row, with a reference in it.
PAYLOAD_INLINE_BYTES_MAX = 65_536

# ── retention ───────────────────────────────────────────────────────────────────────────────────────────────────────
# No webhook of the usual schedule is given up after its event is gone from sight: that takes 33 h, at most two days on.
RETENTION_DAYS_MIN = 3
RETENTION_DAYS_DEFAULT = 14
DAYS_KEPT_EVERY_S = 60.0
# A detachment waits for readers of the table, and all others wait behind it: no longer than that, then it is put off.
DAY_LOCK_MS_MAX = 250
DAY_STATEMENT_S_MAX = 600.0
DAYS_DROPPED_A_TURN_MAX = 5
# Of strays in the default partition, which only a wrong clock can make.
STRAYS_DROPPED_A_TURN_MAX = 1_000

# ── receipts ────────────────────────────────────────────────────────────────────────────────────────────────────────
# Leaves of one stored chunk, a power of two: a proof reads one chunk, and one hash for each other chunk of its day.
RECEIPT_CHUNK_LEAVES = 1_024
# After a day's end on the broker's clock, so that what was being written then is there and decided.
RECEIPT_GRACE_S = 300.0
RECEIPT_LOOK_S = 60.0
# Closing a day and projecting share one process: closing takes no more of its time than this.
RECEIPT_SHARE_MAX = 0.2
RECEIPT_CHUNKS_WRITTEN_TOGETHER = 32
RECEIPT_PROJECTED_S_MAX = 30.0
RECEIPT_SESSION_S = 600.0
# What a receipt tells, and where it is looked for: days with facts from the subject's own on, chunks of such a day.
RECEIPT_FACTS_MAX = 500
RECEIPT_DAYS_LOOKED_AT_MAX = 100
RECEIPT_CHUNKS_LOOKED_AT_MAX = 8

# ── the meter ───────────────────────────────────────────────────────────────────────────────────────────────────────
METER_WINDOW_S = 10
# A tally is written up to a gathering after its events; a window closes that much later.
METER_GRACE_S = 2.0
METER_KEPT_S = 60.0
# One series for each account and identifier in Prometheus, up to here; the rest are summed under the identifier `*`.
METER_SERIES_MAX = 1_000

# ── signed requests ─────────────────────────────────────────────────────────────────────────────────────────────────
# So far a request's time may lie from ours, before or after.
SIGNED_REQUEST_S = 300
NONCE_CHARS_MIN = 8
NONCE_CHARS_MAX = 128
# Of those whose time is over, as many are forgotten with each that is spent.
NONCES_FORGOTTEN_AT_ONCE = 10
# A gateway remembers so many nonces, some 20 MB, and each for as long as its request holds at most.
GATEWAY_NONCES_MAX = 100_000
GATEWAY_NONCE_S = 2 * SIGNED_REQUEST_S + 1

# ── rate limits ─────────────────────────────────────────────────────────────────────────────────────────────────────
# Of windows up to so long every request is remembered.
WINDOW_EXACT_S_MAX = 60
WINDOWS_COUNTED_MAX = 100_000
# So long a request waits for the store of rate limits, in parts, of which a process that is late itself counts one at a
# time; and so long the store is left alone when it does not answer.
WINDOWS_WAIT_S_MAX = 0.05
WINDOWS_WAIT_PARTS = 10
WINDOWS_AWAY_S = 1.0
# Requests of one process that ask it at the same time; the others wait for their turn, for which it is not to blame.
WINDOWS_ASKING_MAX = 8

# ── the API ─────────────────────────────────────────────────────────────────────────────────────────────────────────
PAGE_LIMIT_DEFAULT = 20
PAGE_LIMIT_MAX = 100
DEAD_LETTERS_COUNTED_MAX = 100_000
IDEMPOTENCY_KEY_CHARS_MAX = 256
IDEMPOTENCY_KEPT_MS = 24 * 3_600_000
# Longer than any work that is held takes; who asks meanwhile waits so long, and looks so often.
IDEMPOTENCY_HELD_S = 60.0
IDEMPOTENCY_WAIT_S_MAX = 15.0
IDEMPOTENCY_LOOKED_AT_EVERY_S = 0.05
READ_YOUR_WRITES_S_MAX = 2.0
POSITION_READ_EVERY_S = 0.01
IN_FORCE_WAIT_S_MAX = 15.0
RELAY_POLL_S = 0.25
RELAY_BATCH_ENTRIES_MAX = 500
RELAY_LOCK_POLL_S = 0.5
RELAY_SESSION_S = 10.0
# What a trace tells, and what it looks at to count and to choose. What is more is left out, and said to be.
TRACE_CHILDREN_MAX = 50
TRACE_CHILDREN_LOOKED_AT_MAX = 1_000
TRACE_ATTEMPTS_MAX = 1_000
TRACE_REPEATS_MAX = 20
TRACE_QUEUED_LOOKED_AT_MAX = 1_000
POOL_CONNECTIONS_MAX = 10
CONNECT_S_MAX = 5.0
# A request waits so long for a connection of the pool.
POOL_WAIT_S_MAX = 5.0
# And holds it no longer: that of a server which went silent is let go of, and the request is answered 503.
REQUEST_HOLDS_S_MAX = 4.0
STATEMENT_S_MAX = 10.0
SHUTDOWN_S_MAX = 20.0

assert RECORD_VALUE_BYTES_MAX > BODY_BYTES_MAX + 65_536, "a body of the greatest size must fit its record"
assert STEP_CONTEXT_BYTES_MAX + 65_536 < RECORD_VALUE_BYTES_MAX, "a step with the greatest context must fit its record"
assert BODY_BYTES_MAX + PLAN_BYTES_MAX + 65_536 < RECORD_VALUE_BYTES_MAX, "a run's start must fit its record"
assert STEP_CONTEXT_BYTES_MAX + PLAN_BYTES_MAX + 65_536 < RECORD_VALUE_BYTES_MAX, "a live run must fit its record"
assert BODY_BYTES_MAX < STEP_CONTEXT_BYTES_MAX, "every event can be a step's input"
assert STEPS_RELEASED_MAX < LANES_BUFFERED_MAX, "no account may fill the executor's buffer"
assert NONCE_CHARS_MAX <= UNIQUE_KEY_CHARS_MAX, "a nonce can stand for an event's unique key"
assert BATCH_HELD_S_MAX <= SESSION_TIMEOUT_S, "a batch is thrown away before its partition can have another owner"
assert HEARTBEAT_S * 3 <= SESSION_TIMEOUT_S, "three heartbeats may be lost"
assert RETENTION_DAYS_MIN >= 3, "what the reconciler counts, two days, is there"
assert RETENTION_DAYS_DEFAULT + 7 < PARTITION_DAYS_BACK, "a day that is kept has a partition"
assert REPLAY_STILL_MS_MAX < UNIQUE_KEY_WINDOW_MS, "a repeated step of a replay is told as one"
assert REPLAY_POLL_S * 4 < RELAY_SESSION_S, "a replayer that lives always speaks before its session is ended"
assert RELAY_POLL_S * 4 < RELAY_SESSION_S, "a relay that lives always speaks before its session is ended"
assert RATE_WAIT_S < OVERFLOW_AFTER_S, "an account that only keeps to a rate is not slow"
assert RECEIPT_CHUNK_LEAVES.bit_count() == 1, "chunks are subtrees of the whole tree"
assert RECEIPT_CHUNK_LEAVES * 88 * 4 // 3 + 4_096 < RECORD_VALUE_BYTES_MAX, "a chunk fits its record, in base64"
assert RECEIPT_GRACE_S > 10 * TRANSACTION_TIMEOUT_S, "what was begun on a day is decided before it is closed"
assert RECEIPT_LOOK_S * 2 < RECEIPT_SESSION_S, "one that lives always speaks before its session is ended"
assert DELIVERIES_BUFFERED_MAX + OVERFLOW_BUFFERED_MAX <= LANES_BUFFERED_MAX, "overflow does not keep deliveries out"
assert (DELIVERIES_PARTITION_MAX + 2) * 6 <= (COMMIT_METADATA_BYTES_MAX - 8) * 3 // 4, "open records fit the metadata"
assert ACTION_PARAMS_BYTES_MAX + CONTRACT_BYTES_MAX < BODY_BYTES_MAX, "a call with all its parameters is one body"
assert POOL_WAIT_S_MAX + REQUEST_HOLDS_S_MAX < 10, "who asks is answered within 10 s, also while Postgres says nothing"
assert CONFIRMATION_S_MAX * 1000 <= COMMAND_ID_MEMORY_MS, "a confirmed run that is asked for again is told as one"
