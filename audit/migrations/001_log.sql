-- The log itself, where several replicas append to it. A server alone keeps it
-- in files, and these tables stay empty.

-- The end of the log: one row, which whoever appends locks first. front is the
-- right edge of the tree, the hashes of the complete subtrees.
CREATE TABLE audit_end (
    id    BIGINT PRIMARY KEY CHECK (id = 1),
    size  BIGINT NOT NULL,
    front BYTES  NOT NULL,
    epoch BIGINT NOT NULL
);

INSERT INTO audit_end (id, size, front, epoch) VALUES (1, 0, '', 0);

CREATE TABLE audit_entries (
    idx   BIGINT PRIMARY KEY,
    at    BIGINT NOT NULL,
    leaf  BYTES  NOT NULL,
    entry BYTES  NOT NULL
);

CREATE INDEX audit_entries_at ON audit_entries (at);

-- Hashes of complete subtrees of 256 leaves.
CREATE TABLE audit_tiles (
    idx  BIGINT PRIMARY KEY,
    hash BYTES  NOT NULL
);

-- The last record of every chain.
CREATE TABLE audit_chains (
    chain TEXT   PRIMARY KEY,
    seq   BIGINT NOT NULL,
    hash  BYTES  NOT NULL
);

CREATE TABLE audit_checkpoints (
    size   BIGINT  PRIMARY KEY,
    at     BIGINT  NOT NULL,
    note   TEXT    NOT NULL,
    stays  BOOLEAN NOT NULL
);

-- Keys of personal data, each sealed by the key in the row without a month,
-- which is wrapped by the key that is outside. A key that was destroyed leaves
-- its row.
CREATE TABLE audit_keys (
    chain  TEXT   NOT NULL,
    month  TEXT   NOT NULL,
    key_id TEXT   NOT NULL,
    sealed BYTES  NOT NULL,
    PRIMARY KEY (chain, month)
);

-- For searching; made again from the log when it is lost. ticket and person
-- are keyed hashes, whose key goes when personal data is erased.
CREATE TABLE audit_index (
    idx         BIGINT PRIMARY KEY,
    at          BIGINT NOT NULL,
    kind        TEXT   NOT NULL,
    chain       TEXT   NOT NULL,
    application TEXT   NOT NULL,
    caller      TEXT   NOT NULL,
    tenant      TEXT   NOT NULL,
    audience    TEXT   NOT NULL,
    purpose     TEXT   NOT NULL,
    request     TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    uti         TEXT   NOT NULL,
    handed      BIGINT NOT NULL,
    ticket      BIGINT,
    person      BIGINT
);

CREATE INDEX audit_index_at ON audit_index (at);
CREATE INDEX audit_index_chain ON audit_index (chain, idx);
CREATE INDEX audit_index_kind ON audit_index (kind, idx);
CREATE INDEX audit_index_caller ON audit_index (caller, idx);
CREATE INDEX audit_index_tenant ON audit_index (tenant, idx);
CREATE INDEX audit_index_request ON audit_index (request);
CREATE INDEX audit_index_fingerprint ON audit_index (fingerprint);
CREATE INDEX audit_index_uti ON audit_index (uti);
CREATE INDEX audit_index_ticket ON audit_index (ticket);
CREATE INDEX audit_index_person ON audit_index (person);
CREATE INDEX audit_index_handed ON audit_index (chain, handed) WHERE handed > 0;

CREATE TABLE audit_indexed (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    next BIGINT NOT NULL
);

INSERT INTO audit_indexed (id, next) VALUES (1, 0);
