-- A small platform, what all of its levels have: roles, schemas, and a publication. Run at both ends.
CREATE ROLE harbour_admin;
CREATE ROLE harbour_core NOINHERIT;
CREATE ROLE harbour_files;
CREATE ROLE guest;
CREATE ROLE member;
-- The user works as this one.
CREATE ROLE keeper LOGIN;
GRANT guest, member TO keeper;
ALTER ROLE guest SET statement_timeout = '3s';
CREATE SCHEMA core AUTHORIZATION harbour_admin;
CREATE SCHEMA files AUTHORIZATION harbour_admin;
CREATE SCHEMA clock AUTHORIZATION harbour_admin;
GRANT ALL ON SCHEMA core TO harbour_core;
GRANT ALL ON SCHEMA files TO harbour_files;
GRANT USAGE ON SCHEMA core, files TO guest, member, keeper;
GRANT CREATE ON SCHEMA files TO keeper;
COMMENT ON SCHEMA core IS 'made by the core service';
ALTER DEFAULT PRIVILEGES FOR ROLE harbour_files IN SCHEMA files GRANT SELECT ON TABLES TO member;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO guest, member;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES TO guest;
ALTER DEFAULT PRIVILEGES FOR ROLE harbour_admin IN SCHEMA public GRANT ALL ON TABLES TO guest;
CREATE PUBLICATION harbour_live;
ALTER PUBLICATION harbour_live OWNER TO postgres;

-- As pg_cron has it: no column owns the sequence.
CREATE SEQUENCE clock.jobid_seq;
CREATE TABLE clock.job (jobid bigint PRIMARY KEY DEFAULT nextval('clock.jobid_seq'), command text NOT NULL, active boolean NOT NULL DEFAULT true);
ALTER TABLE clock.job OWNER TO harbour_admin;
ALTER SEQUENCE clock.jobid_seq OWNER TO harbour_admin;
CREATE TABLE core.sealed (id int PRIMARY KEY, secret text);
ALTER TABLE core.sealed OWNER TO harbour_core;
CREATE FUNCTION core.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN new.touched := coalesce(new.touched, 0) + 1; RETURN new; END $$;
ALTER FUNCTION core.touch() OWNER TO harbour_core;
CREATE FUNCTION core.uid() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('harbour.uid', true) $$;
ALTER FUNCTION core.uid() OWNER TO harbour_core;
CREATE FUNCTION files.call_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
ALTER FUNCTION files.call_out() OWNER TO harbour_files;
-- Of the platform although the user's role owns it.
CREATE FUNCTION core.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
ALTER FUNCTION core.watch() OWNER TO keeper;
CREATE EVENT TRIGGER harbour_watch ON ddl_command_end EXECUTE FUNCTION core.watch();
