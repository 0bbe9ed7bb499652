-- Mutations of triggers, policies, owners, grants, roles, settings, comments.
--# trigger touch_doc on every.doc
ALTER TABLE every.doc DISABLE TRIGGER touch_doc;
--undo
ALTER TABLE every.doc ENABLE TRIGGER touch_doc;
--# trigger touch_always on every.doc
ALTER TABLE every.doc ENABLE TRIGGER touch_always;
--undo
ALTER TABLE every.doc ENABLE ALWAYS TRIGGER touch_always;
--# trigger touch_doc on every.doc
DROP TRIGGER touch_doc ON every.doc; CREATE TRIGGER touch_doc AFTER UPDATE ON every.doc FOR EACH ROW EXECUTE FUNCTION every.touch();
--undo
DROP TRIGGER touch_doc ON every.doc; CREATE TRIGGER touch_doc BEFORE UPDATE ON every.doc FOR EACH ROW EXECUTE FUNCTION every.touch(); ALTER TRIGGER touch_doc ON every.doc DEPENDS ON EXTENSION hstore;
--# trigger call_out on every.doc
DROP TRIGGER call_out ON every.doc; CREATE TRIGGER call_out AFTER INSERT ON every.doc FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION every.touch('https://é.example/TRIGGER call_out ', '', '{"Authorization": "it''s \loud', ');');
--undo
DROP TRIGGER call_out ON every.doc; CREATE TRIGGER call_out AFTER INSERT ON every.doc FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION every.touch('https://é.example/TRIGGER call_out ', '', '{"Authorization": "it''s \hush', ');');
--# trigger call_out on every.doc
DROP TRIGGER call_out ON every.doc;
--undo
CREATE TRIGGER call_out AFTER INSERT ON every.doc FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION every.touch('https://é.example/TRIGGER call_out ', '', '{"Authorization": "it''s \hush', ');');
--# trigger touch_part on every.part_low
ALTER TABLE every.part_low DISABLE TRIGGER touch_part;
--undo
ALTER TABLE every.part_low ENABLE TRIGGER touch_part;
--# event trigger watch
ALTER EVENT TRIGGER watch DISABLE;
--undo
ALTER EVENT TRIGGER watch ENABLE;
--# event trigger watch
DROP EVENT TRIGGER watch;
--undo
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE CONVERSION') EXECUTE FUNCTION every.on_ddl();
--# policy readers on every.doc
DROP POLICY readers ON every.doc;
--undo
CREATE POLICY readers ON every.doc AS PERMISSIVE FOR SELECT TO app_reader USING (amount < 1000);
--# policy readers on every.doc
ALTER POLICY readers ON every.doc TO PUBLIC;
--undo
ALTER POLICY readers ON every.doc TO app_reader;
--# policy readers on every.doc
ALTER POLICY readers ON every.doc USING (true);
--undo
ALTER POLICY readers ON every.doc USING (amount < 1000);
--# policy writers on every.doc
ALTER POLICY writers ON every.doc WITH CHECK (true);
--undo
ALTER POLICY writers ON every.doc WITH CHECK (amount > 0);
--# policy writers on every.doc
DROP POLICY writers ON every.doc; CREATE POLICY writers ON every.doc AS PERMISSIVE FOR UPDATE USING (true) WITH CHECK (amount > 0);
--undo
DROP POLICY writers ON every.doc; CREATE POLICY writers ON every.doc AS RESTRICTIVE FOR UPDATE USING (true) WITH CHECK (amount > 0);
--# table every.doc
ALTER TABLE every.doc NO FORCE ROW LEVEL SECURITY;
--undo
ALTER TABLE every.doc FORCE ROW LEVEL SECURITY;
--# table every.doc
ALTER TABLE every.doc DISABLE ROW LEVEL SECURITY;
--undo
ALTER TABLE every.doc ENABLE ROW LEVEL SECURITY;
--# table every.log
ALTER TABLE every.log OWNER TO app_owner;
--undo
ALTER TABLE every.log OWNER TO postgres;
--# function every.twice(integer)
ALTER FUNCTION every.twice OWNER TO app_owner;
--undo
ALTER FUNCTION every.twice OWNER TO postgres;
--# table every.line
REVOKE GRANT OPTION FOR SELECT ON every.line FROM app_reader;
--undo
SET ROLE app_owner; GRANT SELECT ON every.line TO app_reader WITH GRANT OPTION;
--# table every.log
GRANT INSERT ON every.log TO PUBLIC;
--undo
REVOKE INSERT ON every.log FROM PUBLIC;
--# column every.doc.title
REVOKE SELECT (title) ON every.doc FROM app_reader;
--undo
GRANT SELECT (title) ON every.doc TO app_reader;
--# function every.greet(text,boolean)
GRANT EXECUTE ON FUNCTION every.greet TO PUBLIC;
--undo
REVOKE EXECUTE ON FUNCTION every.greet FROM PUBLIC;
--# sequence every.counter
REVOKE USAGE ON SEQUENCE every.counter FROM app_reader;
--undo
GRANT USAGE ON SEQUENCE every.counter TO app_reader;
--# schema every
REVOKE USAGE ON SCHEMA every FROM app_reader;
--undo
SET ROLE app_owner; GRANT USAGE ON SCHEMA every TO app_reader;
--# type every.mood
REVOKE USAGE ON TYPE every.mood FROM app_reader;
--undo
GRANT USAGE ON TYPE every.mood TO app_reader;
--# function public.hstore(text,text)
REVOKE EXECUTE ON FUNCTION public.hstore(text, text) FROM app_reader;
--undo
GRANT EXECUTE ON FUNCTION public.hstore(text, text) TO app_reader;
--# server far
REVOKE USAGE ON FOREIGN SERVER far FROM app_reader;
--undo
GRANT USAGE ON FOREIGN SERVER far TO app_reader;
--# default privileges for role postgres in schema every on tables
ALTER DEFAULT PRIVILEGES IN SCHEMA every GRANT INSERT ON TABLES TO app_reader;
--undo
ALTER DEFAULT PRIVILEGES IN SCHEMA every REVOKE INSERT ON TABLES FROM app_reader;
--# default privileges for role postgres on functions
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
--undo
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
--# role app_member
REVOKE app_reader FROM app_member;
--undo
GRANT app_reader TO app_member;
--# role app_reader
ALTER ROLE app_reader BYPASSRLS;
--undo
ALTER ROLE app_reader NOBYPASSRLS;
--# role app_reader
ALTER ROLE app_reader SET work_mem = '16MB';
--undo
ALTER ROLE app_reader SET work_mem = '8MB';
--# role app_reader
ALTER ROLE app_reader IN DATABASE app RESET search_path;
--undo
ALTER ROLE app_reader IN DATABASE app SET search_path = every, public;
--# database
ALTER DATABASE app OWNER TO app_member;
--undo
ALTER DATABASE app OWNER TO postgres;
--# database
ALTER DATABASE app CONNECTION LIMIT 50;
--undo
ALTER DATABASE app CONNECTION LIMIT -1;
--# database
ALTER DATABASE app IS_TEMPLATE true;
--undo
ALTER DATABASE app IS_TEMPLATE false;
--# database
ALTER DATABASE app SET statement_timeout = '6min';
--undo
ALTER DATABASE app SET statement_timeout = '5min';
--# database
ALTER DATABASE app SET app.jwt_secret = 'another secret of the database';
--undo
ALTER DATABASE app SET app.jwt_secret = 'a secret of the database';
--# database
GRANT TEMPORARY ON DATABASE app TO app_reader;
--undo
REVOKE TEMPORARY ON DATABASE app FROM app_reader;
--# database
COMMENT ON DATABASE app IS 'another comment';
--undo
COMMENT ON DATABASE app IS 'every kind of object';
--# table every.doc
COMMENT ON TABLE every.doc IS NULL;
--undo
COMMENT ON TABLE every.doc IS 'a document';
--# column every.doc.title
COMMENT ON COLUMN every.doc.title IS 'another title';
--undo
COMMENT ON COLUMN every.doc.title IS 'a title';
--# function every.twice(integer)
COMMENT ON FUNCTION every.twice IS 'triples';
--undo
COMMENT ON FUNCTION every.twice IS 'doubles';
--# policy readers on every.doc
COMMENT ON POLICY readers ON every.doc IS 'a remark';
--undo
COMMENT ON POLICY readers ON every.doc IS NULL;
--# function pg_read_file(text)
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) FROM app_reader;
--undo
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app_reader;
--# function pg_read_file(text)
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app_reader WITH GRANT OPTION;
--undo
REVOKE GRANT OPTION FOR EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) FROM app_reader;
--# function pg_sleep(double precision)
GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) TO PUBLIC;
--undo
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
--# function pg_terminate_backend(integer,bigint)
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_terminate_backend(int, bigint) FROM PUBLIC;
--undo
GRANT EXECUTE ON FUNCTION pg_catalog.pg_terminate_backend(int, bigint) TO PUBLIC;
--# function lo_import(text)
GRANT EXECUTE ON FUNCTION pg_catalog.lo_import(text) TO PUBLIC;
--undo
REVOKE EXECUTE ON FUNCTION pg_catalog.lo_import(text) FROM PUBLIC;
--# table pg_proc
GRANT SELECT ON pg_catalog.pg_proc TO PUBLIC;
--undo
REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC; GRANT SELECT (proname) ON pg_catalog.pg_proc TO app_reader;
--# table pg_authid
GRANT SELECT ON pg_catalog.pg_authid TO app_reader;
--undo
REVOKE SELECT ON pg_catalog.pg_authid FROM app_reader;
--# column pg_proc.proname
REVOKE SELECT (proname) ON pg_catalog.pg_proc FROM app_reader;
--undo
GRANT SELECT (proname) ON pg_catalog.pg_proc TO app_reader;
--# column pg_authid.rolpassword
GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO app_reader;
--undo
REVOKE SELECT (rolpassword) ON pg_catalog.pg_authid FROM app_reader;
--# column pg_subscription.subname
REVOKE SELECT (subname) ON pg_catalog.pg_subscription FROM PUBLIC;
--undo
GRANT SELECT (subname) ON pg_catalog.pg_subscription TO PUBLIC;
--# type money
GRANT USAGE ON TYPE pg_catalog.money TO PUBLIC;
--undo
REVOKE USAGE ON TYPE pg_catalog.money FROM PUBLIC;
--# language sql
REVOKE USAGE ON LANGUAGE sql FROM PUBLIC;
--undo
GRANT USAGE ON LANGUAGE sql TO PUBLIC;
--# schema pg_catalog
GRANT CREATE ON SCHEMA pg_catalog TO app_reader;
--undo
REVOKE CREATE ON SCHEMA pg_catalog FROM app_reader;
--# view information_schema.tables
REVOKE SELECT ON information_schema.tables FROM PUBLIC;
--undo
GRANT SELECT ON information_schema.tables TO PUBLIC;
--# table information_schema.sql_parts
REVOKE SELECT ON information_schema.sql_parts FROM app_reader;
--undo
GRANT SELECT ON information_schema.sql_parts TO app_reader;
--# role intruder
CREATE ROLE intruder LOGIN; GRANT app_owner TO intruder;
--undo
DROP ROLE intruder;
--# role second
CREATE ROLE second; GRANT app_member TO second;
--undo
DROP ROLE second;
--# role app_idle
GRANT app_owner TO app_idle;
--undo
REVOKE app_owner FROM app_idle;
--# role app_reader
REVOKE SET ON PARAMETER log_min_messages FROM app_reader;
--undo
GRANT SET ON PARAMETER log_min_messages TO app_reader;
--# role app_reader
GRANT ALTER SYSTEM ON PARAMETER work_mem TO app_reader;
--undo
REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM app_reader;
--# trigger touch_doc on every.doc
ALTER TRIGGER touch_doc ON every.doc NO DEPENDS ON EXTENSION hstore;
--undo
ALTER TRIGGER touch_doc ON every.doc DEPENDS ON EXTENSION hstore;
--# table every.kept
ALTER TABLE every.kept DISABLE ROW LEVEL SECURITY;
--undo
ALTER TABLE every.kept ENABLE ROW LEVEL SECURITY;
--# table every.kept
ALTER TABLE every.kept FORCE ROW LEVEL SECURITY;
--undo
ALTER TABLE every.kept NO FORCE ROW LEVEL SECURITY;
--# policy own on every.kept
DROP POLICY own ON every.kept;
--undo
CREATE POLICY own ON every.kept USING (n > 0);
--# policy own on every.kept
ALTER POLICY own ON every.kept USING (true);
--undo
ALTER POLICY own ON every.kept USING (n > 0);
--# policy more on every.kept
CREATE POLICY more ON every.kept USING (true);
--undo
DROP POLICY more ON every.kept;
--# rule keep on every.kept
CREATE RULE keep AS ON DELETE TO every.kept DO INSTEAD NOTHING;
--undo
DROP RULE keep ON every.kept;
--# trigger spy on every.kept
CREATE TRIGGER spy AFTER INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch();
--undo
DROP TRIGGER spy ON every.kept;
--# trigger kept_touch on every.kept
CREATE OR REPLACE TRIGGER kept_touch AFTER INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch();
--undo
CREATE OR REPLACE TRIGGER kept_touch BEFORE INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch();
--# trigger kept_call on every.kept
CREATE OR REPLACE TRIGGER kept_call BEFORE INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch('loud');
--undo
CREATE OR REPLACE TRIGGER kept_call BEFORE INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch('hush');
--# table every.stowaway
CREATE TABLE every.stowaway (n int); ALTER EXTENSION hstore ADD TABLE every.stowaway;
--undo
ALTER EXTENSION hstore DROP TABLE every.stowaway; DROP TABLE every.stowaway;
--# extension plpgsql
COMMENT ON EXTENSION plpgsql IS 'another language';
--undo
COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language';
--# table every.doc
REVOKE USAGE ON TYPE every.doc FROM PUBLIC;
--undo
GRANT USAGE ON TYPE every.doc TO PUBLIC;
--# database
GRANT SET ON PARAMETER log_statement TO PUBLIC;
--undo
REVOKE SET ON PARAMETER log_statement FROM PUBLIC;
--# database
GRANT ALTER SYSTEM ON PARAMETER log_statement TO pg_monitor;
--undo
REVOKE ALTER SYSTEM ON PARAMETER log_statement FROM pg_monitor;
--# database
ALTER ROLE ALL SET log_min_duration_statement = '1h';
--undo
ALTER ROLE ALL RESET log_min_duration_statement;
--# role spy
CREATE ROLE spy SUPERUSER LOGIN;
--undo
DROP ROLE spy;
--# role app_idle
GRANT pg_read_all_data TO app_idle;
--undo
REVOKE pg_read_all_data FROM app_idle;
--# role app_idle
ALTER ROLE app_idle SUPERUSER;
--undo
ALTER ROLE app_idle NOSUPERUSER;
