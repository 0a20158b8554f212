-- Phone numbers and agents. JSON is text.

CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    tenant_id INTEGER REFERENCES tenants (id),  -- NULL: every tenant's
    source TEXT NOT NULL,                       -- 'config', 'api'
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE UNIQUE INDEX agents_by_name ON agents (coalesce(tenant_id, 0), name);

CREATE TABLE phone_numbers (
    id TEXT PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    source TEXT NOT NULL,                       -- 'config', 'api'
    number TEXT NOT NULL,                       -- E.164, a SIP address
    vendor TEXT NOT NULL,
    display_name TEXT NOT NULL,
    agent_id TEXT REFERENCES agents (id) ON DELETE SET NULL,
    status TEXT NOT NULL,                       -- 'active', or a word for why not
    settings TEXT,                              -- the vendor's account without secrets
    secrets TEXT,                               -- the secrets of the account, sealed
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (vendor, number)
);
CREATE INDEX phone_numbers_by_tenant ON phone_numbers (tenant_id, created_at);
CREATE INDEX phone_numbers_by_agent ON phone_numbers (agent_id);
