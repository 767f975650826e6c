-- The database's clock, in Unix milliseconds, as it moves on within a
-- statement: leases of several replicas are compared by one clock.
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql VOLATILE AS
	'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint';
