-- What the user has made, at the source.
INSERT INTO members.person SELECT i, 'team ' || i % 4, 'person' || i || '@club.example' FROM generate_series(1, 100) i;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO club_anon, club_member, club_service;

CREATE TABLE app.friend (of int, friend int, PRIMARY KEY (of, friend));
INSERT INTO app.friend SELECT i, 1 + i % 100 FROM generate_series(1, 100) i;
-- It finds its table by the search path of the application.
CREATE FUNCTION app.is_friend(person int) RETURNS bool LANGUAGE plpgsql STABLE SECURITY DEFINER
    AS $$ BEGIN RETURN EXISTS (SELECT FROM friend f WHERE f.of = members.me() AND f.friend = person); END $$;

CREATE TABLE app.note (id int PRIMARY KEY, owner int NOT NULL, team text NOT NULL, open bool NOT NULL, body text NOT NULL);
INSERT INTO app.note SELECT i, 1 + i % 100, 'team ' || i % 4, i % 10 = 0, 'words of note ' || i FROM generate_series(1, 900) i;
ALTER TABLE app.note ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.note TO club_member USING (owner = members.me());
CREATE POLICY team ON app.note FOR SELECT TO club_member USING (team = members.team() AND open);
CREATE POLICY open ON app.note FOR SELECT TO club_anon USING (open);
GRANT SELECT, INSERT, UPDATE ON app.note TO club_member;
GRANT SELECT (id, body) ON app.note TO club_anon;
GRANT ALL ON app.note TO club_service;

CREATE TABLE app.photo (id int PRIMARY KEY, owner int NOT NULL, title text);
INSERT INTO app.photo SELECT i, 1 + i % 100, 'title of photo ' || i FROM generate_series(1, 300) i;
ALTER TABLE app.photo ENABLE ROW LEVEL SECURITY;
CREATE POLICY friends ON app.photo TO club_member USING (owner = members.me() OR app.is_friend(owner));
GRANT SELECT ON app.photo TO club_member, club_service;

-- Named by its root, which alone has policy and grant.
CREATE TABLE app.event (id int, day date, owner int) PARTITION BY RANGE (day);
CREATE TABLE app.event_1 PARTITION OF app.event FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE app.event_2 PARTITION OF app.event FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO app.event SELECT i, '2026-01-15'::date + i % 30, 1 + i % 100 FROM generate_series(1, 500) i;
ALTER TABLE app.event ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.event TO club_member USING (owner = members.me());
GRANT SELECT ON app.event TO club_member;

-- Kept from everybody, open to everybody, of nobody's concern.
CREATE TABLE app.secret (id int PRIMARY KEY, word text);
INSERT INTO app.secret VALUES (1, 'the secret word');
ALTER TABLE app.secret ENABLE ROW LEVEL SECURITY;
CREATE TABLE app.news (id int PRIMARY KEY, text text);
INSERT INTO app.news SELECT i, 'news ' || i FROM generate_series(1, 3000) i;
GRANT SELECT ON app.news TO PUBLIC;
CREATE TABLE app.internal (id int PRIMARY KEY);
