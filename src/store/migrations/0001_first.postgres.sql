-- Calls, messages, and what a daemon must remember of them.
-- Ids sort by their bytes, as SQLite sorts them.

CREATE TABLE tenants (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE phone_calls (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id TEXT COLLATE "C" UNIQUE NOT NULL,
    call_sid TEXT COLLATE "C" NOT NULL,    -- the vendor's id; 'pending:' and call_id until it is known
    session_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    direction TEXT NOT NULL,               -- 'inbound', 'outbound'
    customer_number TEXT NOT NULL,         -- E.164, a SIP address, 'anonymous'
    organization_number TEXT NOT NULL,
    status TEXT NOT NULL,                  -- 'initiated', 'ringing', 'incoming', 'answered', 'in_progress', 'ended'
    end_reason TEXT,
    start_time TIMESTAMPTZ NOT NULL,
    answered_at TIMESTAMPTZ,
    end_time TIMESTAMPTZ,
    duration BIGINT,                       -- seconds from answer to end
    tenant_id BIGINT NOT NULL REFERENCES tenants (id),
    agent TEXT NOT NULL,
    recording TEXT,                        -- file under the data root
    metadata JSONB,
    node TEXT NOT NULL,                    -- the daemon that carries the call, by the id in its journal's folder
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (vendor, call_sid)
);
CREATE INDEX phone_calls_newest ON phone_calls (tenant_id, start_time, call_id);
CREATE INDEX phone_calls_by_sid ON phone_calls (tenant_id, call_sid);
CREATE INDEX phone_calls_open ON phone_calls (tenant_id, start_time, call_id) WHERE status <> 'ended';

CREATE TABLE phone_call_messages (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id TEXT COLLATE "C" UNIQUE NOT NULL,
    call_id TEXT COLLATE "C" NOT NULL REFERENCES phone_calls (call_id),
    tenant_id BIGINT NOT NULL,             -- the call's
    seq BIGINT NOT NULL,                   -- order within the call, from 1
    message_type TEXT NOT NULL,            -- 'transcript', 'tts_audio'
    content TEXT NOT NULL,
    sender_type TEXT NOT NULL,             -- 'customer', 'agent'
    sender_name TEXT,
    confidence DOUBLE PRECISION,
    detected_language TEXT,
    is_final BOOLEAN NOT NULL DEFAULT TRUE,
    delivery TEXT,                         -- 'stored', 'heard', 'cut', 'failed'; NULL for what was heard
    heard_ms BIGINT,
    metadata JSONB,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (call_id, seq)
);

CREATE TABLE tenant_counters (
    tenant_id BIGINT PRIMARY KEY,
    last_event_id BIGINT NOT NULL
);

CREATE TABLE events (
    tenant_id BIGINT NOT NULL,
    id BIGINT NOT NULL,                    -- position in the tenant's order
    call_id TEXT COLLATE "C" NOT NULL,
    payload TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX events_by_age ON events (created_at);

CREATE TABLE seen_webhooks (
    vendor TEXT NOT NULL,
    key TEXT NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (vendor, key)
);
CREATE INDEX seen_webhooks_by_age ON seen_webhooks (seen_at);

-- One row for each start of a daemon: the last group of batches that it committed. Raised in the group's own transaction,
-- so a group whose commit was in doubt is never applied twice.
CREATE TABLE writers (
    id TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    last_group BIGINT NOT NULL,
    written_at TIMESTAMPTZ NOT NULL
);
