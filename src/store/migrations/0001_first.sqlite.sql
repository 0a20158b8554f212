-- Calls, messages, and what a daemon must remember of them.
-- Times are UTC RFC 3339 text with microseconds, all of one width, so that they sort as text. JSON is text.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE phone_calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    call_id TEXT UNIQUE NOT NULL,
    call_sid TEXT NOT NULL,                -- the vendor's id; 'pending:' and call_id until it is known
    session_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    direction TEXT NOT NULL,               -- 'inbound', 'outbound'
    customer_number TEXT NOT NULL,         -- E.164, a SIP address, 'anonymous'
    organization_number TEXT NOT NULL,
    status TEXT NOT NULL,                  -- 'initiated', 'ringing', 'incoming', 'answered', 'in_progress', 'ended'
    end_reason TEXT,
    start_time TEXT NOT NULL,
    answered_at TEXT,
    end_time TEXT,
    duration INTEGER,                      -- seconds from answer to end
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    agent TEXT NOT NULL,
    recording TEXT,                        -- file under the data root
    metadata TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (vendor, call_sid)
);
CREATE INDEX phone_calls_newest ON phone_calls (tenant_id, start_time, call_id);
CREATE INDEX phone_calls_by_sid ON phone_calls (tenant_id, call_sid);
CREATE INDEX phone_calls_open ON phone_calls (tenant_id, start_time, call_id) WHERE status <> 'ended';

CREATE TABLE phone_call_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT UNIQUE NOT NULL,
    call_id TEXT NOT NULL REFERENCES phone_calls (call_id),
    tenant_id INTEGER NOT NULL,            -- the call's
    seq INTEGER NOT NULL,                  -- order within the call, from 1
    message_type TEXT NOT NULL,            -- 'transcript', 'tts_audio'
    content TEXT NOT NULL,
    sender_type TEXT NOT NULL,             -- 'customer', 'agent'
    sender_name TEXT,
    confidence REAL,
    detected_language TEXT,
    is_final BOOLEAN NOT NULL DEFAULT TRUE,
    delivery TEXT,                         -- 'stored', 'heard', 'cut', 'failed'; NULL for what was heard
    heard_ms INTEGER,
    metadata TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (call_id, seq)
);

CREATE TABLE tenant_counters (
    tenant_id INTEGER PRIMARY KEY,
    last_event_id INTEGER NOT NULL
);

CREATE TABLE events (
    tenant_id INTEGER NOT NULL,
    id INTEGER NOT NULL,                   -- position in the tenant's order
    call_id TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (tenant_id, id)
) WITHOUT ROWID;
CREATE INDEX events_by_age ON events (created_at);

CREATE TABLE seen_webhooks (
    vendor TEXT NOT NULL,
    key TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    PRIMARY KEY (vendor, key)
) WITHOUT ROWID;
CREATE INDEX seen_webhooks_by_age ON seen_webhooks (seen_at);
