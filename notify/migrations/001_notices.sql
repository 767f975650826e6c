-- What people are told of. It is not security state: whoever can write the
-- database can take a notice away that waits, and the audit log has the act.
CREATE TABLE notices (
	id         TEXT    PRIMARY KEY,
	kind       TEXT    NOT NULL,
	key        TEXT    NOT NULL, -- tells it from others of its kind
	partner    TEXT    NOT NULL, -- short name, or ""
	content    TEXT    NOT NULL, -- JSON: the notice, and who is to be told
	created    BIGINT  NOT NULL,
	settled    BOOLEAN NOT NULL, -- false: its act was announced, and is not known to have happened
	UNIQUE (kind, key)
);
CREATE INDEX notices_created ON notices (created);

-- Each way of telling each address. What waits is tried when it is due, by the
-- replica that moves due on.
CREATE TABLE notice_deliveries (
	notice   TEXT   NOT NULL,
	way      TEXT   NOT NULL, -- mail, webhook
	address  TEXT   NOT NULL, -- "" for the webhook
	state    TEXT   NOT NULL, -- waiting, delivered, failed
	attempts BIGINT NOT NULL,
	due      BIGINT NOT NULL,
	ends     BIGINT NOT NULL, -- when it is given up
	claim    TEXT   NOT NULL, -- whoever tries it just now, or did last
	fault    TEXT   NOT NULL, -- of the last attempt, or ""
	changed  BIGINT NOT NULL,
	PRIMARY KEY (notice, way, address)
);
CREATE INDEX notice_deliveries_due ON notice_deliveries (due) WHERE state = 'waiting';
