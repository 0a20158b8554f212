-- What is kept of a call, and for how long.

ALTER TABLE phone_calls ADD COLUMN legal_hold BOOLEAN NOT NULL DEFAULT FALSE;  -- nothing of it is erased
ALTER TABLE phone_calls ADD COLUMN erasing TEXT;          -- what of it is being erased: 'audio', 'text', 'all'
ALTER TABLE phone_calls ADD COLUMN text_erased_at TIMESTAMPTZ;
CREATE INDEX phone_calls_with_audio ON phone_calls (tenant_id, end_time) WHERE recording IS NOT NULL;
CREATE INDEX phone_calls_with_text ON phone_calls (tenant_id, end_time) WHERE text_erased_at IS NULL;

CREATE TABLE retention (
    tenant_id BIGINT PRIMARY KEY REFERENCES tenants (id),
    audio_seconds BIGINT,                  -- NULL: for ever
    text_seconds BIGINT,                   -- NULL: for ever
    updated_at TIMESTAMPTZ NOT NULL
);
