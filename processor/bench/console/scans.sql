-- How often one of Catchment's tables of more than 10,000 rows was read from end to end.
SELECT coalesce(sum(s.seq_scan), 0)::bigint FROM pg_catalog.pg_stat_user_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid
WHERE s.schemaname = 'catchment' AND c.reltuples > 10000
