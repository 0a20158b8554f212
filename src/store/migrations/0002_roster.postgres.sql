-- Phone numbers and agents.

CREATE TABLE agents (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id BIGINT REFERENCES tenants (id),   -- NULL: every tenant's
    source TEXT NOT NULL,                       -- 'config', 'api'
    name TEXT NOT NULL,
    settings JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX agents_by_name ON agents (coalesce(tenant_id, 0), name);

CREATE TABLE phone_numbers (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id BIGINT NOT NULL REFERENCES tenants (id),
    source TEXT NOT NULL,                       -- 'config', 'api'
    number TEXT NOT NULL,                       -- E.164, a SIP address
    vendor TEXT NOT NULL,
    display_name TEXT NOT NULL,
    agent_id TEXT COLLATE "C" REFERENCES agents (id) ON DELETE SET NULL,
    status TEXT NOT NULL,                       -- 'active', or a word for why not
    settings JSONB,                             -- the vendor's account without secrets
    secrets TEXT,                               -- the secrets of the account, sealed
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (vendor, number)
);
CREATE INDEX phone_numbers_by_tenant ON phone_numbers (tenant_id, created_at);
CREATE INDEX phone_numbers_by_agent ON phone_numbers (agent_id);
