-- The one row that says how often security state has changed.
CREATE TABLE head (
	one   BIGINT PRIMARY KEY CHECK (one = 1),
	epoch BIGINT NOT NULL
);
INSERT INTO head (one, epoch) VALUES (1, 1);
