-- A database that can be stopped half way. Some 20 MB that do not compress, in tables of different sizes.
SET client_min_messages = warning;
CREATE SCHEMA depot;

-- Stops whoever calls it where the setting says so, until the test lets go of the lock.
CREATE FUNCTION depot.hold(n bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF current_setting('pgconvoy_test.hold', true) = 'index' THEN
    PERFORM pg_advisory_lock_shared(4711);
    PERFORM pg_advisory_unlock_shared(4711);
  END IF;
  RETURN n;
END $$;

CREATE FUNCTION depot.noise(seed text, bytes integer) RETURNS bytea LANGUAGE sql STRICT AS $$
  SELECT string_agg(decode(md5(seed || i), 'hex'), ''::bytea ORDER BY i) FROM generate_series(1, bytes / 16) i
$$;

CREATE TYPE depot.state AS ENUM ('new', 'used', 'broken');

-- The largest: the copy begins with it.
CREATE TABLE depot.big (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  state depot.state NOT NULL,
  load bytea NOT NULL
);
INSERT INTO depot.big (state, load)
SELECT (enum_range(NULL::depot.state))[1 + i % 3], depot.noise('big' || i, 1600) FROM generate_series(1, 7500) i;

CREATE UNLOGGED TABLE depot.fleeting (id integer PRIMARY KEY, load bytea);
INSERT INTO depot.fleeting SELECT i, depot.noise('fleeting' || i, 1600) FROM generate_series(1, 1250) i;

-- Without a key nothing but the ledger keeps a row from arriving twice.
CREATE TABLE depot.keyless (n integer, load bytea);
INSERT INTO depot.keyless SELECT i % 100, depot.noise('keyless' || i % 100, 1600) FROM generate_series(1, 600) i;

DO $$
BEGIN
  FOR t IN 1..8 LOOP
    EXECUTE format($sql$
      CREATE TABLE depot.shelf_%s (
        id bigint PRIMARY KEY,
        big bigint NOT NULL,
        CONSTRAINT shelf_%1$s_big FOREIGN KEY (big) REFERENCES depot.big,
        label text,
        load bytea
      );
      INSERT INTO depot.shelf_%1$s SELECT i, 1 + i %% 7500, md5(i::text), depot.noise('shelf' || %1$s || i, 1600)
      FROM generate_series(1, 500) i;
      CREATE INDEX shelf_%1$s_label ON depot.shelf_%1$s (label);
    $sql$, t);
  END LOOP;
END $$;

CREATE INDEX held ON depot.shelf_5 (depot.hold(id));
CREATE VIEW depot.broken AS SELECT id FROM depot.big WHERE state = 'broken';
GRANT SELECT ON depot.big TO PUBLIC;
ALTER TABLE depot.shelf_1 ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON depot.shelf_1 FOR SELECT USING (id % 2 = 0);
CREATE SEQUENCE depot.counter;
SELECT setval('depot.counter', 4242) \g /dev/null
ANALYZE;
