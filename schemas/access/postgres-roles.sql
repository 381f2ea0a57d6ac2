-- Roles of Catchment in Postgres: who changes its schema, who works in it, who reads it. Run it in the database of
-- postgres.url, as a superuser or as the database's owner with CREATEROLE, before the first migration; it may be run again.
-- The roles have no passwords yet: \password catchment_processor, or what your operator does for that.

DO $$
DECLARE
    r text;
BEGIN
    FOREACH r IN ARRAY ARRAY['catchment_owner', 'catchment_processor', 'catchment_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', r);
        END IF;
    END LOOP;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT catchment_owner TO %I', current_user); -- who may not act as the owner could give away nothing of its
    END IF;
END $$;

-- catchment_owner migrates (postgres.migrate_url, `catchment migrate`). It owns the schema, and nothing else of the database.
CREATE SCHEMA IF NOT EXISTS catchment AUTHORIZATION catchment_owner;

-- Functions that change the schema within bounds are for the processor alone. Postgres lets everybody call new functions;
-- the migrations take that back for theirs.
ALTER DEFAULT PRIVILEGES FOR ROLE catchment_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE catchment_owner IN SCHEMA catchment GRANT EXECUTE ON FUNCTIONS TO catchment_processor;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment TO catchment_processor;

-- catchment_processor works (postgres.url of the processor, and of the tool for redrives, replays, backfills, erasure). It
-- changes rows, never the schema.
GRANT USAGE ON SCHEMA catchment TO catchment_processor;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA catchment TO catchment_processor;
ALTER DEFAULT PRIVILEGES FOR ROLE catchment_owner IN SCHEMA catchment GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO catchment_processor;

-- catchment_reader reads: analysts, dashboards, the tool's events, status and audit.
GRANT USAGE ON SCHEMA catchment TO catchment_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA catchment TO catchment_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE catchment_owner IN SCHEMA catchment GRANT SELECT ON TABLES TO catchment_reader;

-- And what your operations touch, table by table, for instance:
--   GRANT USAGE ON SCHEMA shop TO catchment_processor;
--   GRANT SELECT, INSERT, UPDATE ON shop.orders TO catchment_processor;
