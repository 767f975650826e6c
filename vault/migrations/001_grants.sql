-- One row for each consent: the generations of a grant. Times are Unix
-- milliseconds. A row that is neither active nor suspended has no sealed
-- token; it stays, so that a generation is never used twice.
CREATE TABLE grants (
	cloud        TEXT   NOT NULL,
	application  TEXT   NOT NULL,
	partner      TEXT   NOT NULL,
	generation   BIGINT NOT NULL CHECK (generation > 0),
	version      BIGINT NOT NULL CHECK (version > 0),
	state        TEXT   NOT NULL,
	user_tenant  TEXT   NOT NULL,
	user_object  TEXT   NOT NULL,
	user_name    TEXT   NOT NULL,
	consented    BIGINT NOT NULL,
	until        BIGINT NOT NULL,
	redeemed     BIGINT NOT NULL,
	evidence     TEXT   NOT NULL, -- JSON
	audiences    TEXT   NOT NULL, -- JSON
	agent_groups TEXT   NOT NULL, -- JSON
	key_id       TEXT,            -- of the key that wraps the data key
	sealed       BYTES,
	PRIMARY KEY (cloud, application, partner, generation),
	CHECK ((sealed IS NOT NULL AND key_id IS NOT NULL AND state IN ('active', 'suspended'))
		OR (sealed IS NULL AND key_id IS NULL AND state IN ('replaced', 'withdrawn')))
);

-- No grant has two generations that could serve.
CREATE UNIQUE INDEX grants_live ON grants (cloud, application, partner)
	WHERE state IN ('active', 'suspended');
