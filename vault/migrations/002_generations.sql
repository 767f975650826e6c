-- Candidates and fall-backs, what the keep-alive knows, and sealed tokens that
-- are kept elsewhere. SQLite cannot change a CHECK, so the table is made anew.
--
-- A row that has a token has it either here (sealed) or in the home that it
-- names, as the version ref of it. A row without one that still names a home
-- has a copy there which is to be destroyed.
CREATE TABLE grants2 (
	cloud          TEXT   NOT NULL,
	application    TEXT   NOT NULL,
	partner        TEXT   NOT NULL,
	generation     BIGINT NOT NULL CHECK (generation > 0),
	version        BIGINT NOT NULL CHECK (version > 0),
	state          TEXT   NOT NULL,
	since          BIGINT NOT NULL DEFAULT 0, -- the epoch of the last change of state
	origin         TEXT   NOT NULL DEFAULT 'consent',
	user_tenant    TEXT   NOT NULL,
	user_object    TEXT   NOT NULL,
	user_name      TEXT   NOT NULL,
	consented      BIGINT NOT NULL,
	until          BIGINT NOT NULL,
	redeemed       BIGINT NOT NULL,
	fallback_until BIGINT NOT NULL DEFAULT 0, -- of a fall-back or a candidate; else 0
	compromised    BIGINT NOT NULL DEFAULT 0 CHECK (compromised IN (0, 1)),
	due            BIGINT NOT NULL DEFAULT 0,
	attempted      BIGINT NOT NULL DEFAULT 0, -- 0 if never
	failures       BIGINT NOT NULL DEFAULT 0,
	last_fault     TEXT   NOT NULL DEFAULT '',
	evidence       TEXT   NOT NULL, -- JSON
	audiences      TEXT   NOT NULL, -- JSON
	agent_groups   TEXT   NOT NULL, -- JSON
	key_id         TEXT,            -- of the key that wraps the data key
	home           TEXT   NOT NULL DEFAULT '', -- '' is here
	ref            TEXT   NOT NULL DEFAULT '',
	sealed         BYTES,
	PRIMARY KEY (cloud, application, partner, generation),
	CHECK ((state IN ('candidate', 'active', 'fallback', 'suspended') AND key_id IS NOT NULL
			AND ((home = '' AND ref = '' AND sealed IS NOT NULL) OR (home <> '' AND ref <> '' AND sealed IS NULL)))
		OR (state IN ('replaced', 'discarded', 'withdrawn') AND key_id IS NULL AND ref = '' AND sealed IS NULL))
);

INSERT INTO grants2 (cloud, application, partner, generation, version, state, since, origin, user_tenant, user_object, user_name,
	consented, until, redeemed, fallback_until, compromised, due, attempted, failures, last_fault,
	evidence, audiences, agent_groups, key_id, home, ref, sealed)
SELECT cloud, application, partner, generation, version, state, (SELECT epoch FROM head), 'consent', user_tenant, user_object, user_name,
	consented, until, redeemed, 0, 0, 0, 0, 0, '',
	evidence, audiences, agent_groups, key_id, '', '', sealed
FROM grants;

DROP TABLE grants;
ALTER TABLE grants2 RENAME TO grants;

-- No grant has two generations of the same standing.
CREATE UNIQUE INDEX grants_live ON grants (cloud, application, partner)
	WHERE state IN ('active', 'suspended');
CREATE UNIQUE INDEX grants_fallback ON grants (cloud, application, partner) WHERE state = 'fallback';
CREATE UNIQUE INDEX grants_candidate ON grants (cloud, application, partner) WHERE state = 'candidate';
CREATE INDEX grants_due ON grants (due) WHERE state = 'active';

-- One row for each token that replicas share: whose turn it is to redeem it,
-- and what came of the last turn. Times are those of the database's clock.
CREATE TABLE turns (
	id          BYTES  PRIMARY KEY, -- SHA-256 of everything that makes two tokens different
	cloud       TEXT   NOT NULL,
	application TEXT   NOT NULL,
	partner     TEXT   NOT NULL,
	owner       TEXT   NOT NULL, -- '' if it is nobody's turn
	fence       BIGINT NOT NULL CHECK (fence > 0),
	lease       BIGINT NOT NULL, -- until when it is the owner's
	epoch       BIGINT NOT NULL, -- in which the token was stored
	expires     BIGINT NOT NULL, -- the token's end; 0 if there is none
	fingerprint TEXT   NOT NULL,
	key_id      TEXT,
	sealed      BYTES,
	CHECK ((sealed IS NULL AND key_id IS NULL AND expires = 0) OR (sealed IS NOT NULL AND key_id IS NOT NULL AND expires > 0))
);
CREATE INDEX turns_grant ON turns (cloud, application, partner);
