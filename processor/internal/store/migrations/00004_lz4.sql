-- +goose Up

-- Rows of bodies are longer than 2 KiB as a rule, and then Postgres compresses them: LZ4 takes a tenth of the CPU that its
-- own pglz takes, for about the same space. What is stored stays as it is. Where the server was built without LZ4, or is
-- older than it, pglz stays.
-- +goose StatementBegin
DO $$
DECLARE
    t regclass;
BEGIN
    IF 'lz4' = ANY ((SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression')::text[]) THEN
        FOR t IN SELECT 'catchment.bodies'::regclass UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = 'catchment.bodies'::regclass LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN body SET COMPRESSION lz4, ALTER COLUMN headers SET COMPRESSION lz4', t);
        END LOOP;
    END IF;
END $$;
-- +goose StatementEnd
