SELECT (SELECT count(*) FROM catchment.outbox) + (SELECT count(*) FROM catchment.retries)
