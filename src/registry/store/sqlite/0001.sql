-- Narrow, because lists, counts and sweeps read all of it; no index on what changes with every check-in.
CREATE TABLE tenant (
    id TEXT PRIMARY KEY NOT NULL,
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    credentials BLOB NOT NULL,
    status TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    due_at INTEGER,
    waits INTEGER NOT NULL,
    untold_since INTEGER,
    version TEXT NOT NULL,
    region TEXT NOT NULL,
    codes TEXT NOT NULL,
    search TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX tenant_retired ON tenant (retired_at) WHERE retired_at IS NOT NULL;

CREATE TABLE last (tenant TEXT PRIMARY KEY NOT NULL, doc TEXT NOT NULL);
CREATE TABLE report (tenant TEXT PRIMARY KEY NOT NULL, doc TEXT NOT NULL);
CREATE TABLE credential (digest BLOB PRIMARY KEY NOT NULL, tenant TEXT NOT NULL) WITHOUT ROWID;

-- A position is never given twice, even after the newest lines are gone.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX entry_tenant ON entry (tenant, seq);

CREATE TABLE key (
    id TEXT PRIMARY KEY NOT NULL,
    digest BLOB NOT NULL,
    admin INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) WITHOUT ROWID;

CREATE TABLE webhook (
    id TEXT PRIMARY KEY NOT NULL,
    url TEXT NOT NULL,
    kinds TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    position INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    last_error TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE alive (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL);
CREATE TABLE blind (from_at INTEGER NOT NULL, to_at INTEGER NOT NULL);
