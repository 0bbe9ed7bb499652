-- Level 9: other columns, types, labels, tables, triggers; no prefixes.
CREATE ROLE harbour_live;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO harbour_live;
CREATE TYPE core.factor AS ENUM ('code', 'key', 'phone');
ALTER TYPE core.factor OWNER TO harbour_core;
CREATE DOMAIN core.code AS text;
ALTER DOMAIN core.code OWNER TO harbour_core;
CREATE TABLE core.contact (id int PRIMARY KEY, mail text, age int, code core.code);
CREATE TABLE core.levels (level text PRIMARY KEY);
INSERT INTO core.levels VALUES ('5'), ('7'), ('9');
CREATE TABLE core.account (
    id int PRIMARY KEY, mail text UNIQUE, nick varchar(40) DEFAULT NULL, locale text NOT NULL DEFAULT 'en', secret text, phone text, touched int,
    known text GENERATED ALWAYS AS (coalesce(mail, phone)) STORED, created_at timestamptz NOT NULL DEFAULT now());
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON core.account FOR EACH ROW EXECUTE FUNCTION core.touch();
CREATE TABLE core.factor_of (id int PRIMARY KEY, account int NOT NULL REFERENCES core.account ON DELETE CASCADE, kind core.factor, seen text, last_at timestamptz);
CREATE TABLE core.claim (factor int NOT NULL REFERENCES core.factor_of, what text);
CREATE TABLE core.token (id bigserial PRIMARY KEY, account int REFERENCES core.account ON DELETE CASCADE, value text, counter bigint);
CREATE TABLE core.flow (id int PRIMARY KEY, code text);
CREATE TABLE core.log (id int PRIMARY KEY, what text, origin text);
CREATE TABLE core.device (id int PRIMARY KEY, kind text NOT NULL);
CREATE TABLE core.passkey (id int PRIMARY KEY, account int REFERENCES core.account);
CREATE INDEX account_nick ON core.account (nick);
ALTER TABLE core.account ENABLE ROW LEVEL SECURITY;
CREATE TABLE files.levels (id int PRIMARY KEY, name text);
INSERT INTO files.levels VALUES (1, 'first'), (2, 'prefixes'), (10, 'without');
CREATE TABLE files.box (id text PRIMARY KEY, open boolean NOT NULL DEFAULT false);
CREATE TABLE files.item (id int PRIMARY KEY, box text REFERENCES files.box, name text, size bigint);
CREATE FUNCTION files.protect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('files.may_delete', true), '') <> 'true' THEN RAISE EXCEPTION 'use the API'; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER protect BEFORE DELETE ON files.item FOR EACH STATEMENT EXECUTE FUNCTION files.protect();
-- Fires whatever the role of the session.
ALTER TABLE files.item ENABLE ALWAYS TRIGGER protect;
CREATE POLICY platform_reads ON files.box FOR SELECT TO harbour_live USING (true);
ALTER TABLE files.item ENABLE ROW LEVEL SECURITY;
ALTER TABLE files.box ENABLE ROW LEVEL SECURITY;
CREATE SCHEMA live AUTHORIZATION harbour_live;
CREATE TABLE live.message (id serial PRIMARY KEY);
ALTER TABLE live.message OWNER TO harbour_live;
INSERT INTO live.message VALUES (1);
GRANT CREATE ON DATABASE app TO harbour_live;
