-- Security state. There is a row while no token may be handed out.
CREATE TABLE lockdown (
	one    BIGINT PRIMARY KEY CHECK (one = 1),
	reason TEXT   NOT NULL,
	since  BIGINT NOT NULL,
	set_by TEXT   NOT NULL
);

-- Grants that came out of a backup and wait for their probe. Until then each is
-- suspended, too.
CREATE TABLE restored (
	cloud       TEXT NOT NULL,
	application TEXT NOT NULL,
	partner     TEXT NOT NULL, -- tenant
	served      BIGINT NOT NULL CHECK (served IN (0, 1)), -- 0: suspended already when the backup was made
	PRIMARY KEY (cloud, application, partner)
);
