-- Level 7.
CREATE TYPE core.factor AS ENUM ('code', 'key');
ALTER TYPE core.factor OWNER TO harbour_core;
-- What this level alone demands of rows, one of it by a function of its own.
CREATE DOMAIN core.code AS text CONSTRAINT code_short CHECK (length(VALUE) < 6);
ALTER DOMAIN core.code OWNER TO harbour_core;
CREATE FUNCTION core.is_reachable(mail text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT mail <> '' $$;
ALTER FUNCTION core.is_reachable(text) OWNER TO harbour_core;
CREATE TABLE core.contact (id int PRIMARY KEY, mail text CONSTRAINT reachable CHECK (core.is_reachable(mail)), age int CONSTRAINT grown CHECK (age >= 0), code core.code);
CREATE UNIQUE INDEX contact_mail ON core.contact (lower(mail)) WHERE age < 100;
CREATE TABLE core.levels (level text PRIMARY KEY);
INSERT INTO core.levels VALUES ('5'), ('7');
CREATE TABLE core.account (
    id int PRIMARY KEY, mail text UNIQUE, secret text, phone character varying(20), note text, touched int,
    known text GENERATED ALWAYS AS (coalesce(mail, phone)) STORED, created_at timestamptz NOT NULL DEFAULT now());
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON core.account FOR EACH ROW EXECUTE FUNCTION core.touch();
CREATE INDEX account_note ON core.account (note);
CREATE TABLE core.factor_of (id int PRIMARY KEY, account int NOT NULL REFERENCES core.account ON DELETE CASCADE, kind core.factor, seen text NOT NULL);
CREATE TABLE core.claim (factor int NOT NULL REFERENCES core.factor_of, what text);
CREATE TABLE core.token (id bigserial PRIMARY KEY, account int REFERENCES core.account ON DELETE CASCADE, value text);
CREATE TABLE core.flow (id int PRIMARY KEY, code text NOT NULL);
CREATE TABLE core.log (id int PRIMARY KEY, what text);
CREATE TABLE core.device (id int PRIMARY KEY);
ALTER TABLE core.account ENABLE ROW LEVEL SECURITY;
CREATE TABLE files.levels (id int PRIMARY KEY, name text);
INSERT INTO files.levels VALUES (1, 'first'), (2, 'prefixes');
CREATE TABLE files.box (id text PRIMARY KEY, open boolean NOT NULL DEFAULT false);
CREATE TABLE files.item (id int PRIMARY KEY, box text REFERENCES files.box, name text, size integer, level integer);
CREATE TABLE files.prefix (box text REFERENCES files.box, name text, PRIMARY KEY (box, name));
CREATE FUNCTION files.level_of(name text) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT cardinality(string_to_array(name, '/')) $$;
CREATE FUNCTION files.prefix_of(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT nullif(regexp_replace(name, '/?[^/]*$', ''), '') $$;
CREATE FUNCTION files.keep_prefix() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a trigger of the platform has fired'; END $$;
CREATE TRIGGER keep_prefix BEFORE INSERT ON files.item FOR EACH ROW EXECUTE FUNCTION files.keep_prefix();
ALTER TABLE files.item ENABLE ROW LEVEL SECURITY;
