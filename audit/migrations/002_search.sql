-- Every search looks into an index that ends with the record's own, so that
-- the newest page is read from its end, however much the rest of it is: one
-- token that is handed out from memory may be in a million records.

ALTER TABLE audit_index ADD COLUMN correlation TEXT NOT NULL DEFAULT '';

DROP INDEX audit_index_request;
DROP INDEX audit_index_fingerprint;
DROP INDEX audit_index_uti;
DROP INDEX audit_index_ticket;
DROP INDEX audit_index_person;

CREATE INDEX audit_index_audience ON audit_index (audience, idx);
CREATE INDEX audit_index_purpose ON audit_index (purpose, idx);
CREATE INDEX audit_index_request ON audit_index (request, idx);
CREATE INDEX audit_index_fingerprint ON audit_index (fingerprint, idx);
CREATE INDEX audit_index_uti ON audit_index (uti, idx);
CREATE INDEX audit_index_correlation ON audit_index (correlation, idx);
CREATE INDEX audit_index_ticket ON audit_index (ticket, idx);
CREATE INDEX audit_index_person ON audit_index (person, idx);

-- Which tokens are alive, whoever's they are.
CREATE INDEX audit_index_alive ON audit_index (handed) WHERE handed > 0;
