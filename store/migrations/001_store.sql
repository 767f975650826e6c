-- Times are Unix milliseconds.

-- Security state: changes raise the epoch.
CREATE TABLE partners (
	name         TEXT   PRIMARY KEY,
	cloud        TEXT   NOT NULL,
	application  TEXT   NOT NULL,
	partner      TEXT   NOT NULL, -- tenant
	display_name TEXT   NOT NULL,
	created      BIGINT NOT NULL,
	UNIQUE (cloud, application, partner)
);

-- Security state. A caller may come to have several keys.
CREATE TABLE callers (
	id      TEXT   NOT NULL,
	key_id  TEXT   NOT NULL,
	hash    BYTES  NOT NULL, -- SHA-256 of the secret
	created BIGINT NOT NULL,
	expires BIGINT,          -- null: never
	PRIMARY KEY (id, key_id)
);

CREATE TABLE invitations (
	id         TEXT   PRIMARY KEY,
	hash       BYTES  NOT NULL UNIQUE, -- SHA-256 of the token
	partner    TEXT   NOT NULL REFERENCES partners (name),
	user_name  TEXT   NOT NULL,
	term       BIGINT NOT NULL,        -- of the grant, milliseconds
	created    BIGINT NOT NULL,
	created_by TEXT   NOT NULL,
	expires    BIGINT NOT NULL,
	used       BIGINT,
	generation BIGINT                  -- that it brought
);

-- One-time sign-ins. What the browser must show is there as a hash; state,
-- nonce and PKCE verifier are derived from it, and not here at all.
CREATE TABLE sign_ins (
	id           TEXT   PRIMARY KEY,
	proof        BYTES  NOT NULL, -- SHA-256
	kind         TEXT   NOT NULL,
	cloud        TEXT   NOT NULL,
	authority    TEXT   NOT NULL,
	issuer       TEXT   NOT NULL,
	application  TEXT   NOT NULL,
	partner      TEXT   NOT NULL, -- tenant
	invitation   TEXT   NOT NULL, -- or empty
	redirect_uri TEXT   NOT NULL,
	user_name    TEXT   NOT NULL, -- who is expected, or empty
	until        BIGINT NOT NULL, -- the end of the grant, as the person read it
	audiences    TEXT   NOT NULL, -- JSON
	began        BIGINT NOT NULL,
	expires      BIGINT NOT NULL,
	consumed     BIGINT,
	forgotten    BIGINT NOT NULL, -- when the row may go
	outcome      TEXT             -- JSON
);
CREATE INDEX sign_ins_invitation ON sign_ins (invitation);
CREATE INDEX sign_ins_forgotten ON sign_ins (forgotten);
