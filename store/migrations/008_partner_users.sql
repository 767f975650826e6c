-- Security state: what people of a partner may do on its pages.
CREATE TABLE partner_users (
	cloud      TEXT   NOT NULL,
	partner    TEXT   NOT NULL, -- tenant
	object     TEXT   NOT NULL,
	role       TEXT   NOT NULL,
	created    BIGINT NOT NULL,
	created_by TEXT   NOT NULL,
	PRIMARY KEY (cloud, partner, object, role)
);

-- Sessions of people of partners.
CREATE TABLE partner_sessions (
	hash        BYTES  PRIMARY KEY, -- SHA-256 of what the browser shows
	cloud       TEXT   NOT NULL,
	application TEXT   NOT NULL,
	partner     TEXT   NOT NULL,    -- tenant
	object      TEXT   NOT NULL,
	user_name   TEXT   NOT NULL,    -- for people to read
	signed_in   BIGINT,             -- null: not known
	used        BIGINT NOT NULL,
	expires     BIGINT NOT NULL
);
CREATE INDEX partner_sessions_expires ON partner_sessions (expires);
