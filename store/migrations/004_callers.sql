-- Security state. A caller with nothing but secrets may be missing here.
CREATE TABLE caller_registry (
	id      TEXT   PRIMARY KEY,
	owner   TEXT   NOT NULL,
	created BIGINT NOT NULL,
	binding TEXT   NOT NULL -- JSON
);

-- Security state: what proves who a caller is, beside its secrets.
CREATE TABLE caller_credentials (
	caller  TEXT   NOT NULL,
	id      TEXT   NOT NULL,
	kind    TEXT   NOT NULL,
	detail  TEXT   NOT NULL, -- JSON
	created BIGINT NOT NULL,
	expires BIGINT,          -- null: never
	PRIMARY KEY (caller, id)
);

-- Assertions that were used. A row is there until the assertion has ended.
CREATE TABLE caller_assertions (
	caller  TEXT   NOT NULL,
	hash    BYTES  NOT NULL, -- SHA-256 of the jti
	expires BIGINT NOT NULL,
	PRIMARY KEY (caller, hash)
);
CREATE INDEX caller_assertions_expires ON caller_assertions (expires);

-- Nonces of operators' sign-ins, and their sessions.
CREATE TABLE operator_signins (
	hash    BYTES  PRIMARY KEY, -- SHA-256 of the nonce
	expires BIGINT NOT NULL
);
CREATE TABLE operator_sessions (
	hash      BYTES  PRIMARY KEY, -- SHA-256 of what the operator's client shows
	issuer    TEXT   NOT NULL,
	tenant    TEXT   NOT NULL,
	object    TEXT   NOT NULL,
	user_name TEXT   NOT NULL,   -- for people to read
	member_of TEXT   NOT NULL,   -- JSON
	signed_in BIGINT,            -- null: not known
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL
);
CREATE INDEX operator_sessions_expires ON operator_sessions (expires);
