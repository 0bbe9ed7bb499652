-- Many small tables: :tables of them with ten rows each and a key, over a hundred schemas.
SET synchronous_commit = off;
SELECT set_config('bench.tables', :'tables', false);
CREATE PROCEDURE make(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN first..last LOOP
        EXECUTE format('CREATE TABLE s%s.t%s (id int PRIMARY KEY, name text NOT NULL, at timestamptz)', n % 100, n);
        EXECUTE format('INSERT INTO s%s.t%s SELECT i, ''name '' || i, ''2024-01-01'' FROM generate_series(1, 10) i', n % 100, n);
        IF n % 200 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
DO $$ BEGIN FOR n IN 0..99 LOOP EXECUTE format('CREATE SCHEMA s%s', n); END LOOP; END $$;
CALL make(1, current_setting('bench.tables')::int);
DROP PROCEDURE make;
VACUUM ANALYZE;
