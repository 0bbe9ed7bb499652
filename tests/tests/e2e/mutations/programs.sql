-- Mutations of types, routines, operators, text search, views and rules.
--# type every.mood
ALTER TYPE every.mood ADD VALUE 'glad' BEFORE 'happy';
--undo
DELETE FROM pg_enum WHERE enumtypid = 'every.mood'::regtype AND enumlabel = 'glad';
--# type every.mood | view every.happy
ALTER TYPE every.mood RENAME VALUE 'happy' TO 'merry';
--undo
ALTER TYPE every.mood RENAME VALUE 'merry' TO 'happy';
--# type every.positive
ALTER DOMAIN every.positive SET DEFAULT 2;
--undo
ALTER DOMAIN every.positive SET DEFAULT 1;
--# type every.label
ALTER DOMAIN every.label DROP NOT NULL;
--undo
ALTER DOMAIN every.label SET NOT NULL;
--# constraint above on every.positive
ALTER DOMAIN every.positive DROP CONSTRAINT above; ALTER DOMAIN every.positive ADD CONSTRAINT above CHECK (VALUE > 1);
--undo
ALTER DOMAIN every.positive DROP CONSTRAINT above; ALTER DOMAIN every.positive ADD CONSTRAINT above CHECK (VALUE > 0);
--# type every.extra_pair
CREATE TYPE every.extra_pair AS (c int);
--undo
DROP TYPE every.extra_pair;
--# type every.span
DROP TYPE every.span; CREATE TYPE every.span AS RANGE (subtype = float8);
--undo
DROP TYPE every.span; CREATE TYPE every.span AS RANGE (subtype = float8, subtype_diff = float8mi);
--# type every.raw
ALTER TYPE every.raw SET (STORAGE = external);
--undo
ALTER TYPE every.raw SET (STORAGE = extended);
--# collation every.spare
CREATE COLLATION every.spare (provider = libc, locale = 'C');
--undo
DROP COLLATION every.spare;
--# collation every.plain
UPDATE pg_collation SET collcollate = 'POSIX' WHERE collname = 'plain' AND collnamespace = 'every'::regnamespace;
--undo
UPDATE pg_collation SET collcollate = 'C' WHERE collname = 'plain' AND collnamespace = 'every'::regnamespace;
--# conversion every.from_latin
DROP CONVERSION every.from_latin;
--undo
CREATE CONVERSION every.from_latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
--# view every.happy
CREATE OR REPLACE VIEW every.happy WITH (security_barrier) AS SELECT id, title FROM every.doc WHERE mood <> 'sad';
--undo
CREATE OR REPLACE VIEW every.happy WITH (security_barrier) AS SELECT id, title FROM every.doc WHERE mood = 'happy';
--# view every.happy
ALTER VIEW every.happy RESET (security_barrier);
--undo
ALTER VIEW every.happy SET (security_barrier);
--# materialized view every.totals
REFRESH MATERIALIZED VIEW every.totals WITH NO DATA;
--undo
REFRESH MATERIALIZED VIEW every.totals;
--# materialized view every.unfilled
REFRESH MATERIALIZED VIEW every.unfilled;
--undo
REFRESH MATERIALIZED VIEW every.unfilled WITH NO DATA;
--# rule no_delete on every.log
ALTER TABLE every.log ENABLE RULE no_delete;
--undo
ALTER TABLE every.log DISABLE RULE no_delete;
--# rule no_delete on every.log
DROP RULE no_delete ON every.log;
--undo
CREATE RULE no_delete AS ON DELETE TO every.log DO INSTEAD NOTHING; ALTER TABLE every.log DISABLE RULE no_delete;
--# function every.greet(text,boolean)
CREATE OR REPLACE FUNCTION every.greet(name text, loud boolean DEFAULT false) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = every AS $$ BEGIN RETURN 'Hello ' || name; END $$;
--undo
CREATE OR REPLACE FUNCTION every.greet(name text, loud boolean DEFAULT false) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = every AS $$ BEGIN RETURN 'hello ' || name; END $$;
--# function every.greet(text,boolean)
ALTER FUNCTION every.greet SECURITY INVOKER;
--undo
ALTER FUNCTION every.greet SECURITY DEFINER;
--# function every.greet(text,boolean)
ALTER FUNCTION every.greet SET search_path = public;
--undo
ALTER FUNCTION every.greet SET search_path = every;
--# function every.twice(integer)
ALTER FUNCTION every.twice VOLATILE;
--undo
ALTER FUNCTION every.twice IMMUTABLE;
--# function every.twice(integer)
CREATE OR REPLACE FUNCTION every.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 3;
--undo
CREATE OR REPLACE FUNCTION every.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2;
--# function every.twice(integer)
ALTER FUNCTION every.twice COST 7 PARALLEL SAFE;
--undo
ALTER FUNCTION every.twice COST 100 PARALLEL UNSAFE;
--# function every.rank_again()
DROP FUNCTION every.rank_again;
--undo
CREATE FUNCTION every.rank_again() RETURNS bigint LANGUAGE internal WINDOW AS 'window_rank';
--# procedure every.tidy()
CREATE OR REPLACE PROCEDURE every.tidy() LANGUAGE sql AS 'DELETE FROM every.log';
--undo
CREATE OR REPLACE PROCEDURE every.tidy() LANGUAGE sql AS 'DELETE FROM every.log WHERE n < 0';
--# aggregate every.product(double precision)
CREATE OR REPLACE AGGREGATE every.product (float8) (sfunc = float8mul, stype = float8, initcond = '2');
--undo
CREATE OR REPLACE AGGREGATE every.product (float8) (sfunc = float8mul, stype = float8, initcond = '1');
--# operator every.===(text,text)
ALTER OPERATOR every.=== (text, text) SET (RESTRICT = NONE);
--undo
ALTER OPERATOR every.=== (text, text) SET (RESTRICT = eqsel);
--# operator family every.downward USING btree
ALTER OPERATOR FAMILY every.downward USING btree ADD FUNCTION 2 (int, int) btint4sortsupport(internal);
--undo
ALTER OPERATOR FAMILY every.downward USING btree DROP FUNCTION 2 (int, int);
--# operator class every.int_other USING hash | operator family every.int_other USING hash
CREATE OPERATOR CLASS every.int_other FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
--undo
DROP OPERATOR FAMILY every.int_other USING hash CASCADE;
--# cast (every.pair AS text)
DROP CAST (every.pair AS text); CREATE CAST (every.pair AS text) WITH FUNCTION every.pair_text(every.pair);
--undo
DROP CAST (every.pair AS text); CREATE CAST (every.pair AS text) WITH FUNCTION every.pair_text(every.pair) AS ASSIGNMENT;
--# transform for bigint on language sql
CREATE TRANSFORM FOR bigint LANGUAGE sql (TO SQL WITH FUNCTION int8recv(internal));
--undo
DROP TRANSFORM FOR bigint LANGUAGE sql;
--# language plother
DROP LANGUAGE plother;
--undo
CREATE TRUSTED LANGUAGE plother HANDLER every.handler;
--# access method heap3
CREATE ACCESS METHOD heap3 TYPE TABLE HANDLER heap_tableam_handler;
--undo
DROP ACCESS METHOD heap3;
--# text search parser every.words
DROP TEXT SEARCH PARSER every.words;
--undo
CREATE TEXT SEARCH PARSER every.words (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
--# text search template every.simplest
DROP TEXT SEARCH TEMPLATE every.simplest;
--undo
CREATE TEXT SEARCH TEMPLATE every.simplest (INIT = dsimple_init, LEXIZE = dsimple_lexize);
--# text search dictionary every.plain
ALTER TEXT SEARCH DICTIONARY every.plain (accept = false);
--undo
ALTER TEXT SEARCH DICTIONARY every.plain (accept = true);
--# text search configuration every.search
ALTER TEXT SEARCH CONFIGURATION every.search DROP MAPPING FOR email;
--undo
ALTER TEXT SEARCH CONFIGURATION every.search ADD MAPPING FOR email WITH simple;
--# function every.same(text,text)
ALTER FUNCTION every.same(text, text) NO DEPENDS ON EXTENSION hstore;
--undo
ALTER FUNCTION every.same(text, text) DEPENDS ON EXTENSION hstore;
--# materialized view every.totals
ALTER MATERIALIZED VIEW every.totals NO DEPENDS ON EXTENSION hstore;
--undo
ALTER MATERIALIZED VIEW every.totals DEPENDS ON EXTENSION hstore;
--# type every.raw
ALTER TYPE every.raw SET (SUBSCRIPT = every.raw_subscript);
--undo
ALTER TYPE every.raw SET (SUBSCRIPT = NONE);
--# function every.current()
ALTER FUNCTION every.current SET search_path = pg_temp, every;
--undo
ALTER FUNCTION every.current SET search_path = every, pg_temp;
