-- Whether some replica waits for the end of a turn, and so is to be told of it.
ALTER TABLE turns ADD COLUMN waited BOOLEAN NOT NULL DEFAULT false;
