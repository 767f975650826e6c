-- Security state: changes raise the epoch. The policy in force is the row with
-- the largest number. Rows are never changed, so that any past decision can be
-- explained by the policy that it was made by.
CREATE TABLE policy_versions (
	number     BIGINT PRIMARY KEY,
	version    TEXT   NOT NULL, -- digest of the files
	files      TEXT   NOT NULL, -- JSON
	applied    BIGINT NOT NULL, -- Unix milliseconds
	applied_by TEXT   NOT NULL
);
CREATE INDEX policy_versions_version ON policy_versions (version);
