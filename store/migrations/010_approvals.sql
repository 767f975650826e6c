-- Security state: what a second person was asked, and what they said. What has
-- ended is swept away; the audit log has it.
CREATE TABLE approvals (
	id         TEXT   PRIMARY KEY,
	digest     TEXT   NOT NULL UNIQUE, -- hex SHA-256 of asked
	caller     TEXT   NOT NULL,        -- who asks
	asked      TEXT   NOT NULL,        -- JSON: all that a yes would be for
	state      TEXT   NOT NULL,        -- wanted, given, refused
	wanted     BIGINT NOT NULL,
	expires    BIGINT NOT NULL,        -- of the asking, the yes or the no
	lasts      BIGINT NOT NULL,        -- seconds that a yes lasts
	requester  TEXT   NOT NULL,        -- who asks, by issuer and object; '' of a request
	decided    BIGINT,                 -- null: not yet
	decided_by TEXT   NOT NULL,        -- '' while nobody has
	decider    TEXT   NOT NULL         -- the same, by issuer and object
);
