-- Size of Catchment's tables and of their indexes, with all partitions, in bytes. Rows are counted.
WITH parts AS (
    SELECT c.oid, coalesce(parent.relname, c.relname) AS name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'catchment'
    LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
    LEFT JOIN pg_catalog.pg_class parent ON parent.oid = i.inhparent
    WHERE c.relkind = 'r'
)
SELECT name::text, sum(pg_table_size(oid))::bigint AS table_bytes, sum(pg_indexes_size(oid))::bigint AS index_bytes
FROM parts GROUP BY name HAVING sum(pg_total_relation_size(oid)) > 1048576 ORDER BY 2 DESC;
