-- Which scopes a token carried, as a number that is the same for the same
-- scopes: reports count in the index, and read one record for each number.
-- Zero is of none, and of records that were indexed before.

ALTER TABLE audit_index ADD COLUMN granted BIGINT NOT NULL DEFAULT 0;
