-- Ends a statement as one that was undone because of somebody else at the same
-- time, so that it is tried again.
CREATE FUNCTION undo() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS
	'BEGIN RAISE EXCEPTION ''changed by somebody else at the same time'' USING ERRCODE = ''40001''; END';
