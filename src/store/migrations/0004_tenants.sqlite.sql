-- What is set for a tenant, and the API keys that tenants make. JSON is text.

ALTER TABLE tenants ADD COLUMN active BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE tenants ADD COLUMN settings TEXT;         -- limits that differ from the configured ones
ALTER TABLE tenants ADD COLUMN updated_at TEXT;       -- NULL: never changed

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,                             -- how the key begins
    hash TEXT UNIQUE NOT NULL,                        -- SHA-256 of the key, in hexadecimal digits
    role TEXT NOT NULL,                               -- 'viewer', 'agent', 'admin'
    scopes TEXT NOT NULL,                             -- words parted by spaces; empty: all
    created_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_at);
