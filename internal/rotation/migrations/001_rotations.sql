-- How far the replacement of an application's credential has come, and which
-- credential is in use. No secret is in it.
CREATE TABLE rotations (
	application TEXT PRIMARY KEY, -- its name in the configuration
	state       TEXT NOT NULL     -- JSON
);

-- Which replica uses which credential. A replica that stops says nothing any
-- more, and counts for nothing a while later.
CREATE TABLE credential_uses (
	application TEXT NOT NULL,
	replica     TEXT NOT NULL,
	credential  TEXT NOT NULL, -- a thumbprint, or the hash of a secret
	seen        BIGINT NOT NULL,
	PRIMARY KEY (application, replica)
);
