-- What the platform's services have made, at both ends.
CREATE ROLE club_admin NOLOGIN;
CREATE ROLE club_anon NOLOGIN;
CREATE ROLE club_member NOLOGIN;
CREATE ROLE club_service NOLOGIN BYPASSRLS;
CREATE ROLE club_editor NOLOGIN;
CREATE SCHEMA members AUTHORIZATION club_admin;
SET ROLE club_admin;
GRANT USAGE ON SCHEMA members TO club_anon, club_member, club_service;
CREATE TABLE members.person (id int PRIMARY KEY, team text NOT NULL, mail text NOT NULL);
ALTER TABLE members.person ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION members.me() RETURNS int LANGUAGE sql STABLE
    AS $$ SELECT (nullif(current_setting('club.claims', true), '')::json ->> 'sub')::int $$;
-- As an older level of the platform wrote it: a setting for each claim.
CREATE FUNCTION members.team() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('club.claim.team', true) $$;
RESET ROLE;
