-- +goose Up

-- Postgres lets everybody call a new function. These two run with their owner's rights, and are for those who work in the
-- tables: whoever may insert events makes days, whoever may delete them drops days. The functions ask about that
-- themselves; who has no business with them cannot call them at all.
-- +goose StatementBegin
DO $$
DECLARE
    r record;
BEGIN
    REVOKE EXECUTE ON FUNCTION catchment.make_partitions(integer), catchment.drop_partition(timestamptz) FROM PUBLIC;
    FOR r IN
        SELECT rolname, has_table_privilege(oid, 'catchment.bodies', 'INSERT') AS inserts, has_table_privilege(oid, 'catchment.bodies', 'DELETE') AS deletes
        FROM pg_catalog.pg_roles WHERE NOT rolsuper AND rolname !~ '^pg_'
    LOOP
        IF r.inserts THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION catchment.make_partitions(integer) TO %I', r.rolname);
        END IF;
        IF r.deletes THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION catchment.drop_partition(timestamptz) TO %I', r.rolname);
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd
