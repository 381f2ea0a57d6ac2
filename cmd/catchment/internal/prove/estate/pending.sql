SELECT (SELECT count(*) FROM catchment.outbox) + (SELECT count(*) FROM catchment.retries WHERE cardinality($1::text[]) IS NULL OR source = ANY ($1))
