-- One table whose rows no compressor makes smaller: what of a link's rate is used. :megabytes of them.
SET synchronous_commit = off;
CREATE TABLE noise (id int NOT NULL, data bytea NOT NULL);
ALTER TABLE noise ALTER data SET STORAGE EXTERNAL;
INSERT INTO noise
SELECT i, (SELECT string_agg(sha512((i * 64 + j)::text::bytea), '') FROM generate_series(1, 16) j)
FROM generate_series(1, 1024 * :megabytes) i;
VACUUM ANALYZE;
