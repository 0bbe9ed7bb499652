-- Names, types and objects at their edges. No roles, no large objects, no extensions.
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA nasty;
CREATE SCHEMA "Other schema";
CREATE SCHEMA "empty.schema";
COMMENT ON SCHEMA "Other schema" IS 'It''s "quoted" \ and ünïcode 😀';

-- Types --------------------------------------------------------------------------------------------------------------
CREATE TYPE nasty.mood AS ENUM ('sad', 'ok', 'happy', ' leading space', 'quote''d', 'comma,brace{}', 'back\slash', 'ünï', '', '😀');
ALTER TYPE nasty.mood ADD VALUE 'between' BEFORE 'ok';
CREATE TYPE nasty.pair AS (a int, "B c" text, d numeric[], e nasty.mood);
CREATE TYPE nasty.nested AS (x nasty.pair, y nasty.pair[], z bytea);
CREATE DOMAIN nasty.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN nasty.short AS text NOT NULL DEFAULT 'dflt' CONSTRAINT "len chk" CHECK (length(VALUE) < 100);
CREATE DOMAIN nasty.list AS int[] CHECK (array_length(VALUE, 1) <= 5);
CREATE DOMAIN nasty.tiny AS nasty.positive CHECK (VALUE < 1000);
CREATE TYPE nasty.floats AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = nasty.manyfloats);
CREATE TYPE nasty.shell_only;
CREATE COLLATION nasty.bytes FROM "C";

CREATE TABLE nasty.numbers (
  id int PRIMARY KEY, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, n2 numeric(10, 3), m money, o oid
);
INSERT INTO nasty.numbers VALUES
  (1, -32768, -2147483648, -9223372036854775808, 'NaN', '-Infinity', 'NaN', 1234567.891, '12.34', 4294967295),
  (2, 32767, 2147483647, 9223372036854775807, '-0', '4.9e-324', 'Infinity', -0.001, '-92233720368547758.08', 0),
  (3, 0, 0, 0, '1e-45', '1.7976931348623157e308', 1e400, 0, '0', 1),
  (4, NULL, NULL, NULL, 0.1, 0.1, 0.10000, NULL, NULL, NULL),
  (5, 1, 1, 1, 3.4028235e38, '-0', 1e-400, 1, '0.01', 2);

CREATE TABLE nasty.times (
  id int PRIMARY KEY, d date, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, ranges tstzrange, many int4multirange
);
INSERT INTO nasty.times VALUES
  (1, 'infinity', '24:00:00', '23:59:59.999999+15:59', 'infinity', '-infinity', '178000000 years', 'empty', '{[1,3),[5,)}'),
  (2, '4713-01-01 BC', '00:00', '00:00-15:59', '294276-12-31 23:59:59.999999', '4714-11-24 00:00:00+00 BC', '-1 mon +1 day -00:00:00.000001', '(,)', '{}'),
  (3, '0001-01-01', '12:34:56.789', '12:00+00', '1970-01-01', '2024-03-31 01:30:00+00', '0', '[2024-01-01,infinity)', '{(,)}'),
  (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE nasty.texts (id int PRIMARY KEY, t text, v varchar(5), c char(7), b bytea, n name, q "char", coll text COLLATE nasty.bytes);
INSERT INTO nasty.texts VALUES
  (1, '', '', '', '', '', '', ''),
  (2, E'\\N', E'\\.', E'\\N', E'\\x00ff5c0a', 'null', E'\\', 'NULL'),
  (3, E'tab\tnewline\ncr\rback\\slash\bbell\a vt\v ff\f', E'a\nb', E'x\t', decode(repeat('00', 3000), 'hex'), 'a b', 'x', 'Ä'),
  (4, E'\\.', E'\\n', '  x', E'\\\\', '"', '''', E'\u0001'),
  (5, repeat('😀ünïcode', 20000), 'ünïco', '日本語', decode(repeat('deadbeef', 50000), 'hex'), 'n', NULL, 'z'),
  (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE nasty.others (
  id int PRIMARY KEY, b boolean, u uuid, ip inet, net cidr, mac macaddr, mac8 macaddr8, bits bit(5), vbits varbit, p point, l line, s lseg,
  bx box, pa path, po polygon, ci circle, j json, jb jsonb, jp jsonpath, x xml, tv tsvector, tq tsquery, lsn pg_lsn, xid8 xid8
);
INSERT INTO nasty.others VALUES
  (1, true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '::ffff:1.2.3.4/128', '10/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'', '(NaN,-0)', '{1,2,3}',
   '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),0>', '{"a":1,  "a":2, "b":"\u00e9"}', '{"b":[null,1e3,"\"x\""],"a":{}}', '$.a[*] ? (@ > 1)',
   '<a b="c">&amp;<!-- x --></a>', '''it''''s'':1A b:2', '''a'' & !''b'':*', '16/B374D848', '18446744073709551615'),
  (2, false, '00000000-0000-0000-0000-000000000000', '192.168.0.1/24', '::/0', NULL, NULL, NULL, B'1', NULL, NULL, NULL, NULL, '((0,0),(1,1))', NULL, NULL,
   'null', 'null', NULL, 'only text', '', '', NULL, '0'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE nasty.arrays (id int PRIMARY KEY, i int[], t text[], m nasty.mood[], c nasty.pair[], n numeric[][], j jsonb[], d nasty.list, b boolean[]);
INSERT INTO nasty.arrays VALUES
  (1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'),
  (2, array_fill(7, ARRAY[2,2], ARRAY[-3,7]), ARRAY['', 'NULL', NULL, '{,}', E'\\"'], ARRAY['', 'comma,brace{}', NULL, '😀']::nasty.mood[],
   ARRAY[ROW(1, 'x,)("', '{1.10}', 'back\slash')::nasty.pair, NULL], '{{1,2},{NaN,4}}', ARRAY['{"a": 1}'::jsonb, NULL], '{1,2,3}', '{t,f,NULL}'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE nasty.own_types (id int PRIMARY KEY, m nasty.mood, c nasty.pair, n nasty.nested, p nasty.positive, s nasty.short, t nasty.tiny, r nasty.floats, mr nasty.manyfloats);
INSERT INTO nasty.own_types VALUES
  (1, '', ROW(NULL, '', '{}', ' leading space'), ROW(ROW(1, 'a', NULL, NULL), ARRAY[]::nasty.pair[], '\x00'), 1, 'x', 999, '[1.5,Infinity)', '{[1,2],(3,4)}'),
  (2, 'between', NULL, ROW(NULL, NULL, NULL), NULL, '', NULL, 'empty', '{}');

-- They carry OIDs, which differ between servers: only their names may cross.
CREATE TABLE nasty.registered (id int PRIMARY KEY, c regclass, t regtype, p regprocedure, n regnamespace);
INSERT INTO nasty.registered VALUES (1, 'nasty.numbers', 'nasty.mood', 'pg_catalog.lower(text)', 'nasty'), (2, 'pg_class', 'int', NULL, 'pg_catalog'), (3, NULL, NULL, NULL, NULL);

-- Names --------------------------------------------------------------------------------------------------------------
CREATE TABLE "Other schema"."select" ("from" int PRIMARY KEY, "where" text, "ORDER" int);
INSERT INTO "Other schema"."select" SELECT i, 'w' || i, -i FROM generate_series(1, 10) i;
CREATE TABLE "Other schema"."quo""te.d" ("col""umn" int, "per%cent" int, "semi;colon" int, "dash--" int, "new
line" int, "'single'" int, "ünï😀" int, " lead" int, "trail " int, "a.b" int, "$1" int, "\back" int);
INSERT INTO "Other schema"."quo""te.d" SELECT i, i, i, i, i, i, i, i, i, i, i, i FROM generate_series(1, 10) i;
CREATE TABLE nasty."same" (id int PRIMARY KEY, v text); INSERT INTO nasty."same" VALUES (1, 'lower');
CREATE TABLE nasty."Same" (id int PRIMARY KEY, v text); INSERT INTO nasty."Same" VALUES (1, 'upper');
CREATE TABLE "Other schema"."same" (id int PRIMARY KEY, v text); INSERT INTO "Other schema"."same" VALUES (1, 'elsewhere');
CREATE TABLE public."xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" (id int);
INSERT INTO public."xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" VALUES (63);
CREATE INDEX "index ""with"" quotes" ON "Other schema"."quo""te.d" ("col""umn", ("per%cent" + 1)) WHERE "semi;colon" > 3;

-- Shapes of tables ---------------------------------------------------------------------------------------------------
CREATE TABLE nasty.no_columns (); INSERT INTO nasty.no_columns DEFAULT VALUES; INSERT INTO nasty.no_columns DEFAULT VALUES;
CREATE TABLE nasty.no_rows (id int PRIMARY KEY, t text);
CREATE TABLE nasty.only_generated (g int GENERATED ALWAYS AS (1) STORED);
INSERT INTO nasty.only_generated DEFAULT VALUES; INSERT INTO nasty.only_generated DEFAULT VALUES;
CREATE TABLE nasty.duplicates (a int, b text); INSERT INTO nasty.duplicates SELECT 1, 'same' FROM generate_series(1, 1000);
CREATE TABLE nasty.dropped (a int, gone text, b int DEFAULT 5, gone_too int, c text);
INSERT INTO nasty.dropped SELECT i, 'x', i, i, 'c' || i FROM generate_series(1, 100) i;
ALTER TABLE nasty.dropped DROP gone, DROP gone_too, ADD added int DEFAULT 42;
CREATE TABLE nasty.key_last (filler text, also text, generated int GENERATED ALWAYS AS (length(filler)) STORED, k1 int, k2 text, PRIMARY KEY (k2, k1));
INSERT INTO nasty.key_last (filler, k1, k2) SELECT repeat('f', i % 50), i, 'k' || i % 7 FROM generate_series(1, 1000) i;
DO $$ BEGIN
  EXECUTE 'CREATE TABLE nasty.wide (' || (SELECT string_agg('c' || i || ' text', ', ') FROM generate_series(1, 1200) i) || ')';
  EXECUTE 'INSERT INTO nasty.wide (c1, c600, c1200) VALUES (''first'', NULL, ''last'')';
END $$;
CREATE UNLOGGED TABLE nasty.unlogged (id int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT -3 MAXVALUE 5 MINVALUE -1000) PRIMARY KEY, t text);
INSERT INTO nasty.unlogged (t) SELECT 'u' || i FROM generate_series(1, 50) i;
CREATE TABLE nasty.parameters (id int PRIMARY KEY, big text) WITH (fillfactor = 50, autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE nasty.parameters ALTER big SET STORAGE EXTERNAL, ALTER big SET STATISTICS 17, REPLICA IDENTITY FULL;
INSERT INTO nasty.parameters SELECT i, repeat(md5(i::text), 500) FROM generate_series(1, 20) i;
CREATE TABLE nasty.parent (id int PRIMARY KEY, kind text NOT NULL);
CREATE TABLE nasty.heir (extra int) INHERITS (nasty.parent);
INSERT INTO nasty.parent VALUES (1, 'parent'); INSERT INTO nasty.heir VALUES (1, 'heir', 2), (2, 'heir', 3);

-- Partitions: three levels, a default, a leaf that is attached with another order of columns, hash of an enum.
CREATE TABLE nasty.sales (region text NOT NULL, sold_on date NOT NULL, amount numeric, id bigint, PRIMARY KEY (region, sold_on, id)) PARTITION BY LIST (region);
CREATE TABLE nasty.sales_eu PARTITION OF nasty.sales FOR VALUES IN ('de', 'fr') PARTITION BY RANGE (sold_on);
CREATE TABLE nasty.sales_eu_old PARTITION OF nasty.sales_eu FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE nasty.sales_eu_new PARTITION OF nasty.sales_eu FOR VALUES FROM ('2024-01-01') TO (MAXVALUE);
CREATE TABLE nasty.sales_rest PARTITION OF nasty.sales DEFAULT;
CREATE TABLE nasty.sales_us (id bigint NOT NULL, gone int, amount numeric, sold_on date NOT NULL, region text NOT NULL);
ALTER TABLE nasty.sales_us DROP gone;
ALTER TABLE nasty.sales ATTACH PARTITION nasty.sales_us FOR VALUES IN ('us');
INSERT INTO nasty.sales SELECT (ARRAY['de', 'fr', 'us', 'jp'])[1 + i % 4], date '2023-06-01' + i % 400, i / 3.0, i FROM generate_series(1, 3000) i;
CREATE INDEX sales_amount ON nasty.sales (amount) WHERE amount > 10;
-- Invalid: nobody has made it for every partition.
CREATE INDEX sales_partly ON ONLY nasty.sales (amount);
CREATE INDEX sales_partly_rest ON nasty.sales_rest (amount);
ALTER INDEX nasty.sales_partly ATTACH PARTITION nasty.sales_partly_rest;
CREATE TABLE nasty.moods (m nasty.mood NOT NULL, n int) PARTITION BY HASH (m);
CREATE TABLE nasty.moods_0 PARTITION OF nasty.moods FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE nasty.moods_1 PARTITION OF nasty.moods FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE nasty.moods_2 PARTITION OF nasty.moods FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO nasty.moods SELECT m, n FROM unnest(enum_range(NULL::nasty.mood)) m, generate_series(1, 20) n;

-- Constraints --------------------------------------------------------------------------------------------------------
CREATE TABLE nasty.hen (id int PRIMARY KEY, egg int NOT NULL);
CREATE TABLE nasty.egg (id int PRIMARY KEY, hen int NOT NULL REFERENCES nasty.hen DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE nasty.hen ADD CONSTRAINT "hen's egg" FOREIGN KEY (egg) REFERENCES nasty.egg DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO nasty.hen SELECT i, i FROM generate_series(1, 50) i; INSERT INTO nasty.egg SELECT i, i FROM generate_series(1, 50) i; COMMIT;
CREATE TABLE nasty.tree (id int PRIMARY KEY, up int REFERENCES nasty.tree ON DELETE CASCADE, UNIQUE (id, up));
INSERT INTO nasty.tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 200) i;
CREATE TABLE nasty.leaf (a int, b int, FOREIGN KEY (a, b) REFERENCES nasty.tree (id, up) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL);
INSERT INTO nasty.leaf VALUES (2, 1), (3, 1), (NULL, NULL);
CREATE TABLE nasty.sale_note (region text, sold_on date, id bigint, note text, FOREIGN KEY (region, sold_on, id) REFERENCES nasty.sales);
INSERT INTO nasty.sale_note SELECT region, sold_on, id, 'n' FROM nasty.sales WHERE id % 100 = 0;
CREATE TABLE nasty.not_valid (n int); INSERT INTO nasty.not_valid VALUES (-1), (1);
ALTER TABLE nasty.not_valid ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
CREATE TABLE nasty.not_valid_key (up int); INSERT INTO nasty.not_valid_key VALUES (9999), (1);
ALTER TABLE nasty.not_valid_key ADD CONSTRAINT key_not_valid FOREIGN KEY (up) REFERENCES nasty.tree NOT VALID;
CREATE TABLE nasty.booking (room int4range, during tsrange, EXCLUDE USING gist (room WITH &&, during WITH &&) DEFERRABLE);
INSERT INTO nasty.booking SELECT int4range(i, i + 1), '[2024-01-01,2024-01-02)' FROM generate_series(1, 30) i;
CREATE TABLE nasty.clustered (id int PRIMARY KEY USING INDEX TABLESPACE pg_default, h text); CREATE INDEX clustered_h ON nasty.clustered USING hash (h);
INSERT INTO nasty.clustered SELECT i, md5(i::text) FROM generate_series(1, 300) i; CLUSTER nasty.clustered USING clustered_pkey;
CREATE INDEX brin ON nasty.clustered USING brin (id) WITH (pages_per_range = 4);
CREATE STATISTICS nasty.kinds (dependencies, ndistinct) ON id, kind FROM nasty.parent;

-- Behaviour: none of it may happen during the copy -------------------------------------------------------------------
CREATE TABLE nasty.watched (id int PRIMARY KEY, t text); CREATE TABLE nasty.seen (what text, at timestamptz DEFAULT '2024-01-01 00:00+00');
CREATE FUNCTION nasty.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO nasty.seen (what) VALUES (TG_NAME || TG_OP); RETURN NEW; END $$;
INSERT INTO nasty.watched SELECT i, 'w' FROM generate_series(1, 10) i;
CREATE TRIGGER usual AFTER INSERT ON nasty.watched FOR EACH ROW EXECUTE FUNCTION nasty.see();
CREATE TRIGGER always BEFORE INSERT ON nasty.watched FOR EACH ROW EXECUTE FUNCTION nasty.see();
CREATE TRIGGER replica AFTER INSERT ON nasty.watched FOR EACH ROW EXECUTE FUNCTION nasty.see();
CREATE TRIGGER disabled AFTER INSERT ON nasty.watched FOR EACH STATEMENT EXECUTE FUNCTION nasty.see();
ALTER TABLE nasty.watched ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, DISABLE TRIGGER disabled;
CREATE RULE also AS ON INSERT TO nasty.watched DO ALSO INSERT INTO nasty.seen (what) VALUES ('rule');
ALTER TABLE nasty.seen ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "nobody's" ON nasty.seen AS RESTRICTIVE FOR ALL USING (false);

-- Other objects ------------------------------------------------------------------------------------------------------
CREATE SEQUENCE nasty.untouched; CREATE SEQUENCE nasty.down AS smallint INCREMENT -5 MINVALUE -30000 MAXVALUE 100 START 100 CYCLE CACHE 7;
SELECT nextval('nasty.down'), nextval('nasty.down') \g /dev/null
CREATE SEQUENCE "Other schema"."Seq ""1""" START 9223372036854775807;
SELECT nextval('"Other schema"."Seq ""1"""') \g /dev/null
CREATE VIEW nasty.happy WITH (security_barrier) AS SELECT * FROM nasty.own_types WHERE m = 'happy' WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW nasty.totals AS SELECT region, sum(amount) AS total FROM nasty.sales GROUP BY 1;
CREATE UNIQUE INDEX totals_region ON nasty.totals (region);
CREATE MATERIALIZED VIEW nasty.grand AS SELECT sum(total) FROM nasty.totals;
CREATE MATERIALIZED VIEW nasty.unpopulated AS SELECT 1 AS one WITH NO DATA;
CREATE AGGREGATE nasty.product (float8) (sfunc = float8mul, stype = float8, initcond = '1');
CREATE FUNCTION nasty.same_length(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN length(a) = length(b);
CREATE OPERATOR nasty.<=> (leftarg = text, rightarg = text, function = nasty.same_length, commutator = OPERATOR(nasty.<=>));
CREATE FUNCTION nasty.to_text(nasty.pair) RETURNS text LANGUAGE sql IMMUTABLE RETURN ($1).a::text;
CREATE CAST (nasty.pair AS text) WITH FUNCTION nasty.to_text(nasty.pair) AS ASSIGNMENT;
CREATE PROCEDURE nasty.nothing() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
CREATE TEXT SEARCH CONFIGURATION nasty.english2 (COPY = pg_catalog.english);
CREATE TEXT SEARCH DICTIONARY nasty.plain (TEMPLATE = simple, stopwords = english);
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE FUNCTION nasty.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER watch_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION nasty.on_ddl();
COMMENT ON COLUMN "Other schema"."quo""te.d"."col""umn" IS E'two\nlines';
COMMENT ON CONSTRAINT "hen's egg" ON nasty.hen IS 'first?';
COMMENT ON FUNCTION nasty.same_length(text, text) IS '$1 $$ $x$';
REVOKE ALL ON FUNCTION nasty.same_length(text, text) FROM PUBLIC;
GRANT SELECT (id, "t") ON nasty.watched TO PUBLIC; GRANT USAGE ON SCHEMA nasty TO PUBLIC;
ANALYZE;
