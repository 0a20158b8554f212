-- A vendor's id of a call is unique within its tenant: an account of another tenant may say anything.
-- A constraint of a table is part of it here, so the table is made anew; foreign keys are off meanwhile.

CREATE TABLE calls_with_sids (
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
    legal_hold BOOLEAN NOT NULL DEFAULT FALSE,  -- nothing of it is erased
    erasing TEXT,                          -- what of it is being erased: 'audio', 'text', 'all'
    text_erased_at TEXT,
    UNIQUE (tenant_id, call_sid, vendor)
);
INSERT INTO calls_with_sids SELECT * FROM phone_calls;
DROP TABLE phone_calls;
ALTER TABLE calls_with_sids RENAME TO phone_calls;
CREATE INDEX phone_calls_newest ON phone_calls (tenant_id, start_time, call_id);
CREATE INDEX phone_calls_open ON phone_calls (tenant_id, start_time, call_id) WHERE status <> 'ended';
CREATE INDEX phone_calls_with_audio ON phone_calls (tenant_id, end_time) WHERE recording IS NOT NULL;
CREATE INDEX phone_calls_with_text ON phone_calls (tenant_id, end_time) WHERE text_erased_at IS NULL;
