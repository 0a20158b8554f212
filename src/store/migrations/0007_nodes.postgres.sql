-- The daemons that share the database as nodes of a cluster. Each raises its own number for as long as it lives; whoever sees one
-- stand still takes its row away and, in the same transaction, closes the calls that it left open.

CREATE TABLE nodes (
    id TEXT COLLATE "C" PRIMARY KEY,
    beat BIGINT NOT NULL,
    beat_at TIMESTAMPTZ NOT NULL           -- for people; nobody compares clocks
);
