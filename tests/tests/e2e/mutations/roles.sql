-- What is the server's or the database's, made at both ends by hand.
CREATE ROLE app_owner NOLOGIN;
CREATE ROLE app_reader LOGIN CONNECTION LIMIT 7;
CREATE ROLE app_member NOLOGIN;
CREATE ROLE app_idle LOGIN;
GRANT app_reader TO app_member;
COMMENT ON ROLE app_reader IS 'reads';
ALTER ROLE app_reader SET work_mem = '8MB';
ALTER ROLE app_reader IN DATABASE app SET search_path = every, public;
ALTER DATABASE app SET statement_timeout = '5min';
ALTER DATABASE app SET app.jwt_secret = 'a secret of the database';
COMMENT ON DATABASE app IS 'every kind of object';
GRANT CREATE ON DATABASE app TO app_owner;
GRANT SET ON PARAMETER log_min_messages TO app_reader;
CREATE ROLE app_root SUPERUSER;
