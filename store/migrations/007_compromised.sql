-- Whether the invitation is to replace a consent whose user's account was
-- compromised: what it brings keeps no fall-back.
ALTER TABLE invitations ADD COLUMN compromised BIGINT NOT NULL DEFAULT 0 CHECK (compromised IN (0, 1));
