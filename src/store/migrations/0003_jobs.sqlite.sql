-- Work that outlives the process: what is done after a call, tried until it succeeds or is buried. JSON is text.

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,                        -- kind and what it is about: the same work is queued once
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    kind TEXT NOT NULL,
    call_id TEXT NOT NULL REFERENCES phone_calls (call_id),
    payload TEXT NOT NULL,
    state TEXT NOT NULL,                        -- 'queued', 'done', 'buried'
    attempts INTEGER NOT NULL,                  -- begun so far; whoever takes a job counts it up
    due_at TEXT NOT NULL,                       -- of a job that is being run: when it is taken for lost
    error TEXT,                                 -- why the last attempt failed
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE INDEX jobs_by_due ON jobs (state, due_at);
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, state, created_at);
CREATE INDEX jobs_by_call ON jobs (call_id);
