-- Times are Unix milliseconds.

-- Customers of partners, as Microsoft told us. Not security state by itself: what
-- is there only narrows what rules allow. That one has gone raises the epoch.
CREATE TABLE customers (
	cloud        TEXT   NOT NULL,
	application  TEXT   NOT NULL,
	partner      TEXT   NOT NULL, -- tenant
	tenant       TEXT   NOT NULL,
	name         TEXT   NOT NULL,
	domain       TEXT   NOT NULL,
	sources      TEXT   NOT NULL, -- separated by spaces
	relationship TEXT   NOT NULL, -- the delegated one that ends last, or empty
	ends         BIGINT,          -- null: never, or nobody said
	extends      BIGINT NOT NULL CHECK (extends IN (0, 1)),
	first_seen   BIGINT NOT NULL,
	gone         BIGINT,          -- last seen before a refresh that did not see it; null: the list has it
	PRIMARY KEY (cloud, application, partner, tenant)
);
CREATE INDEX customers_tenant ON customers (tenant);
CREATE INDEX customers_ends ON customers (ends);

-- How the list of each partner stands.
CREATE TABLE customer_lists (
	cloud       TEXT   NOT NULL,
	application TEXT   NOT NULL,
	partner     TEXT   NOT NULL, -- tenant
	attempt     BIGINT NOT NULL, -- counts refreshes that were begun
	settled     BIGINT NOT NULL, -- the last that ended
	version     BIGINT NOT NULL, -- grows when the members change
	members     BIGINT NOT NULL, -- how many
	sources     TEXT   NOT NULL, -- of the list, separated by spaces
	as_of       BIGINT,          -- null: there is no list yet
	attempted   BIGINT NOT NULL,
	due         BIGINT NOT NULL,
	failures    BIGINT NOT NULL,
	fault       TEXT   NOT NULL,
	PRIMARY KEY (cloud, application, partner)
);
