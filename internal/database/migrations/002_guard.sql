-- What proves that security state is as this program left it: the epoch for
-- which it was proven last, a digest of every guarded table, and a MAC of both.
-- All are null until a key was given.
ALTER TABLE head ADD COLUMN guarded BIGINT;
ALTER TABLE head ADD COLUMN digest TEXT;
ALTER TABLE head ADD COLUMN mac BYTES;

-- The key of that MAC, wrapped by a key that is not in the database.
CREATE TABLE state_key (
	one     BIGINT PRIMARY KEY CHECK (one = 1),
	name    TEXT   NOT NULL, -- of the database; random
	key_id  TEXT   NOT NULL, -- of the key that wraps it
	wrapped BYTES  NOT NULL
);
