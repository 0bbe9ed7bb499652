-- Data like an application's: a wide table with every usual type and four indexes, documents in TOAST, two hundred small tables,
-- foreign keys. Text is made of words, so that it compresses two to four times. :percent scales it: 100 is about 2 GB.
SET synchronous_commit = off;
CREATE FUNCTION pg_temp.word(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT substr('betakorilumenaxofradipesquintovarelmosakiruntheldopabriscenjouwhyzig', 1 + (n & 63)::int, 3 + ((n >> 6) & 7)::int)
$$;
CREATE TABLE customers (
    id         bigint PRIMARY KEY,
    ref        uuid NOT NULL UNIQUE,
    name       text NOT NULL,
    email      text,
    created_at timestamptz NOT NULL
);
INSERT INTO customers
SELECT i, md5(i::text)::uuid, pg_temp.word(h) || ' ' || pg_temp.word(h >> 12), 'mail' || i || '@example.org',
       timestamptz '2020-01-01' + i * interval '7 minutes'
FROM (SELECT i, hashint8extended(i, 1) AS h FROM generate_series(1, 1000 * :percent) i) s;

CREATE TABLE orders (
    id          bigint NOT NULL,
    ref         uuid NOT NULL,
    customer_id bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz,
    status      text NOT NULL,
    amount      numeric(12, 2) NOT NULL,
    rate        double precision,
    note        text,
    attributes  jsonb,
    tags        text[],
    scores      int[],
    open        boolean NOT NULL
);
INSERT INTO orders
SELECT i, md5(i::text || 'o')::uuid, 1 + (h & 2147483647) % (1000 * :percent), timestamptz '2021-01-01' + i * interval '11 seconds',
       CASE WHEN h % 3 = 0 THEN timestamptz '2024-01-01' + (h >> 40) * interval '1 second' END,
       (ARRAY['new', 'paid', 'packed', 'shipped', 'returned'])[1 + abs(h % 5)],
       abs(h % 10000000)::numeric / 100, g / 1e15,
       pg_temp.word(h) || ' ' || pg_temp.word(h >> 9) || ' ' || pg_temp.word(h >> 18) || ' ' || pg_temp.word(h >> 27) || ' '
           || pg_temp.word(g) || ' ' || pg_temp.word(g >> 9) || ' ' || pg_temp.word(g >> 18),
       jsonb_build_object('device', pg_temp.word(g >> 27), 'items', abs(g % 40), 'gift', h % 7 = 0, 'zone', abs(h % 97)),
       ARRAY[pg_temp.word(h >> 36), pg_temp.word(g >> 36)], ARRAY[(h & 255)::int, (g & 4095)::int, (i & 15)::int], h % 11 = 0
FROM (SELECT i, hashint8extended(i, 2) AS h, hashint8extended(i, 3) AS g FROM generate_series(1, 40000 * :percent) i) s;
ALTER TABLE orders ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX orders_ref ON orders (ref);
CREATE INDEX orders_customer ON orders (customer_id, created_at);
CREATE INDEX orders_status ON orders (status, amount);
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id);

-- Some 40 kB each, too long for a page.
CREATE TABLE documents (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers (id), title text, body text NOT NULL);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents
SELECT i, 1 + i % (1000 * :percent), 'document ' || i,
       (SELECT string_agg(pg_temp.word(hashint8extended(i * 100000 + j, 4)) || pg_temp.word(hashint8extended(i + j, 5)), ' ')
        FROM generate_series(1, 2600) j)
FROM generate_series(1, 75 * :percent) i;

DO $$
BEGIN
    FOR n IN 1..200 LOOP
        EXECUTE format('CREATE TABLE list_%s (id int PRIMARY KEY, code text NOT NULL UNIQUE, customer_id bigint REFERENCES customers (id), at timestamptz)', n);
        EXECUTE format('INSERT INTO list_%s SELECT i, ''code '' || i, 1 + i %% 100, ''2024-01-01'' FROM generate_series(1, 500) i', n);
    END LOOP;
END $$;
VACUUM ANALYZE;
