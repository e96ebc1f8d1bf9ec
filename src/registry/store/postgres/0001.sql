-- Narrow, because lists, counts and sweeps read all of it; no index on what changes with every check-in, and room on
-- each page, so that an update stays on its page and touches no index.
CREATE TABLE tenant (
    id text COLLATE "C" PRIMARY KEY,
    label text NOT NULL,
    created_at bigint NOT NULL,
    retired_at bigint,
    credentials bytea NOT NULL,
    status text NOT NULL,
    status_since bigint NOT NULL,
    due_at bigint,
    waits boolean NOT NULL,
    untold_since bigint,
    version text NOT NULL,
    region text NOT NULL,
    codes text NOT NULL,
    search text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX tenant_retired ON tenant (retired_at) WHERE retired_at IS NOT NULL;

CREATE TABLE last (tenant text COLLATE "C" PRIMARY KEY, doc text NOT NULL) WITH (fillfactor = 70);
CREATE TABLE report (tenant text COLLATE "C" PRIMARY KEY, doc text NOT NULL) WITH (fillfactor = 70);
CREATE TABLE credential (digest bytea PRIMARY KEY, tenant text NOT NULL);

CREATE TABLE entry (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    text text NOT NULL,
    data text NOT NULL
);
CREATE INDEX entry_tenant ON entry (tenant, seq);

CREATE TABLE key (
    id text COLLATE "C" PRIMARY KEY,
    digest bytea NOT NULL,
    admin boolean NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint
);

CREATE TABLE webhook (
    id text COLLATE "C" PRIMARY KEY,
    url text NOT NULL,
    kinds text NOT NULL,
    created_at bigint NOT NULL,
    position bigint NOT NULL,
    failures bigint NOT NULL,
    next_at bigint NOT NULL,
    last_error text NOT NULL
);

CREATE TABLE alive (one integer PRIMARY KEY CHECK (one = 1), at bigint NOT NULL);
CREATE TABLE blind (from_at bigint NOT NULL, to_at bigint NOT NULL);
