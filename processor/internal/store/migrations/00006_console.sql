-- +goose Up

-- What the console's filters look into besides bodies_seq: a time of receipt, a type (also by its beginning; they repeat, and
-- take little room), and a status other than the usual one. See docs/growth.md for what they cost.
CREATE INDEX bodies_received ON catchment.bodies (received_at);
CREATE INDEX bodies_type ON catchment.bodies (type text_pattern_ops, source);
DROP INDEX catchment.bodies_unfinished;
CREATE INDEX bodies_unfinished ON catchment.bodies (status, seq) WHERE status <> 'processed';

-- The events that changed one entity.
CREATE INDEX results_entity ON catchment.results (entity) WHERE entity IS NOT NULL;
