-- The list of a partner's customers carries a MAC, so that nobody who can write
-- the database makes a tenant somebody's customer: over the hash of its tenants,
-- and over what is said of it. A list without one counts for nothing until it is
-- refreshed.
ALTER TABLE customers ADD COLUMN added BIGINT NOT NULL DEFAULT 0; -- the refresh that brought it, or brought it back
ALTER TABLE customer_lists ADD COLUMN sealed BIGINT NOT NULL DEFAULT 0; -- the refresh that the list is of
ALTER TABLE customer_lists ADD COLUMN tenants BYTES; -- SHA-256 of who was added by then and has not gone
ALTER TABLE customer_lists ADD COLUMN seal BYTES;

-- The version of the list in which a customer was last gone, so that no older
-- list can be put back. Security state.
CREATE TABLE customer_floors (
	cloud       TEXT   NOT NULL,
	application TEXT   NOT NULL,
	partner     TEXT   NOT NULL, -- tenant
	version     BIGINT NOT NULL,
	PRIMARY KEY (cloud, application, partner)
);
