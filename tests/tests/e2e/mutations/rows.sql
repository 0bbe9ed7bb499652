-- Mutations of rows, sequences, schemas, extensions, replication, foreign data and large objects.
--# every.doc
UPDATE every.doc SET body = 'Body 7' WHERE id = 7;
--undo
UPDATE every.doc SET body = 'body 7' WHERE id = 7;
--# every.doc
UPDATE every.doc SET amount = NULL WHERE id = 8;
--undo
UPDATE every.doc SET amount = 8 WHERE id = 8;
--# every.line
DELETE FROM every.line WHERE id = 20;
--undo
INSERT INTO every.line (id, doc) VALUES (20, 20);
--# every.log
INSERT INTO every.log SELECT * FROM every.log LIMIT 1;
--undo
DELETE FROM every.log WHERE ctid = (SELECT max(ctid) FROM every.log);
--# every.log
UPDATE every.log SET n = n + 100 WHERE ctid = (SELECT min(ctid) FROM every.log);
--undo
UPDATE every.log SET n = n - 100 WHERE n >= 100;
--# every.doc
UPDATE every.doc SET body = CASE id WHEN 1 THEN 'body 2' ELSE 'body 1' END WHERE id IN (1, 2);
--undo
UPDATE every.doc SET body = 'body ' || id WHERE id IN (1, 2);
--# every.part_high
UPDATE every.part SET v = 'w' WHERE k = 15;
--undo
UPDATE every.part SET v = 'v' WHERE k = 15;
--# every.scratch
INSERT INTO every.scratch VALUES (1);
--undo
TRUNCATE every.scratch;
--# sequence every.counter
SELECT nextval('every.counter');
--undo
SELECT setval('every.counter', 15, true);
--# sequence every.fresh
SELECT nextval('every.fresh');
--undo
SELECT setval('every.fresh', 1, false);
--# sequence of identity column every.line.id
SELECT setval('every.line_id_seq', 1000);
--undo
SELECT setval('every.line_id_seq', 20);
--# sequence every.counter
ALTER SEQUENCE every.counter NO CYCLE;
--undo
ALTER SEQUENCE every.counter CYCLE;
--# sequence every.counter
ALTER SEQUENCE every.counter CACHE 1 MAXVALUE 2000;
--undo
ALTER SEQUENCE every.counter CACHE 3 MAXVALUE 1000;
--# sequence every.owned
ALTER SEQUENCE every.owned OWNED BY NONE;
--undo
ALTER SEQUENCE every.owned OWNED BY every.log.n;
--# schema empty
DROP SCHEMA empty;
--undo
CREATE SCHEMA empty;
--# schema stowaway
CREATE SCHEMA stowaway; CREATE TABLE stowaway.away (n int);
--undo
DROP SCHEMA stowaway CASCADE;
--# extension citext
CREATE EXTENSION citext;
--undo
DROP EXTENSION citext;
--# extension hstore
UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'hstore';
--undo
UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'hstore') WHERE extname = 'hstore';
--# publication partly
ALTER PUBLICATION partly DROP TABLE every.log;
--undo
ALTER PUBLICATION partly ADD TABLE every.log;
--# publication partly
ALTER PUBLICATION partly SET TABLE every.doc (id, title) WHERE (id > 4), every.log;
--undo
ALTER PUBLICATION partly SET TABLE every.doc (id, title) WHERE (id > 3), every.log;
--# publication partly
ALTER PUBLICATION partly SET (publish = 'insert');
--undo
ALTER PUBLICATION partly SET (publish = 'insert, truncate');
--# publication whole
ALTER PUBLICATION whole ADD TABLES IN SCHEMA empty;
--undo
ALTER PUBLICATION whole DROP TABLES IN SCHEMA empty;
--# subscription incoming
ALTER SUBSCRIPTION incoming CONNECTION 'host=127.0.0.1 port=1 dbname=x password=loud';
--undo
ALTER SUBSCRIPTION incoming CONNECTION 'host=127.0.0.1 port=1 dbname=x password=hush';
--# subscription incoming
ALTER SUBSCRIPTION incoming SET (binary = true);
--undo
ALTER SUBSCRIPTION incoming SET (binary = false);
--# foreign-data wrapper wrapper
ALTER FOREIGN DATA WRAPPER wrapper OPTIONS (SET mode 'fancy');
--undo
ALTER FOREIGN DATA WRAPPER wrapper OPTIONS (SET mode 'plain');
--# server far
ALTER SERVER far OPTIONS (SET host 'near.example');
--undo
ALTER SERVER far OPTIONS (SET host 'far.example');
--# server far
ALTER SERVER far OPTIONS (SET api_key 'another server secret');
--undo
ALTER SERVER far OPTIONS (SET api_key 'server secret');
--# foreign table every.remote
ALTER FOREIGN TABLE every.remote OPTIONS (SET table_name 'other');
--undo
ALTER FOREIGN TABLE every.remote OPTIONS (SET table_name 'remote');
--# column every.remote.id
ALTER FOREIGN TABLE every.remote ALTER id OPTIONS (SET column_name 'Id');
--undo
ALTER FOREIGN TABLE every.remote ALTER id OPTIONS (SET column_name 'ID');
--# user mapping app_reader on server far
ALTER USER MAPPING FOR app_reader SERVER far OPTIONS (SET password 'another mapping secret');
--undo
ALTER USER MAPPING FOR app_reader SERVER far OPTIONS (SET password 'mapping secret');
--# large object 4711
ALTER LARGE OBJECT 4711 OWNER TO app_owner;
--undo
ALTER LARGE OBJECT 4711 OWNER TO postgres;
--# large object 4711
REVOKE SELECT ON LARGE OBJECT 4711 FROM app_reader;
--undo
GRANT SELECT ON LARGE OBJECT 4711 TO app_reader;
--# large object 4711
COMMENT ON LARGE OBJECT 4711 IS 'another';
--undo
COMMENT ON LARGE OBJECT 4711 IS 'large';
