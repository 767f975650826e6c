-- Security state. What a row covers is handed to nobody. An empty column covers
-- all; a row of empty ones covers everything.
CREATE TABLE revocations (
	id          TEXT   PRIMARY KEY,
	cloud       TEXT   NOT NULL,
	application TEXT   NOT NULL,
	partner     TEXT   NOT NULL, -- tenant
	customer    TEXT   NOT NULL, -- tenant
	caller      TEXT   NOT NULL,
	audience    TEXT   NOT NULL,
	reason      TEXT   NOT NULL,
	since       BIGINT NOT NULL, -- Unix milliseconds
	revoked_by  TEXT   NOT NULL
);
