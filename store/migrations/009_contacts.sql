-- Security state: who is told what happens to a partner's consent. Whoever
-- could change that could hide what they do.
CREATE TABLE contacts (
	partner  TEXT   NOT NULL, -- its short name
	address  TEXT   NOT NULL,
	added    BIGINT NOT NULL,
	added_by TEXT   NOT NULL,
	PRIMARY KEY (partner, address)
);
