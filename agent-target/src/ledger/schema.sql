-- The ledger of pgconvoy: what a migration is, and how far it got. For rows it is the only truth: a part's entry
-- commits with its rows. Dropped by `pgconvoy clean`.
CREATE SCHEMA IF NOT EXISTS pgconvoy;
REVOKE ALL ON SCHEMA pgconvoy FROM PUBLIC;
COMMENT ON SCHEMA pgconvoy IS 'Ledger of pgconvoy migrations; dropped by: pgconvoy clean';

CREATE TABLE IF NOT EXISTS pgconvoy.migrations (
    id             text PRIMARY KEY,
    source         text NOT NULL,
    source_version int NOT NULL,
    options        jsonb NOT NULL,
    skipped        jsonb NOT NULL,
    snapshot       text NOT NULL,
    phase          text NOT NULL DEFAULT 'planned',
    verdict        text,
    archive_at     timestamptz,
    sync           jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz
);
COMMENT ON COLUMN pgconvoy.migrations.verdict IS 'null while unfinished; proven, unverified, differs';
COMMENT ON COLUMN pgconvoy.migrations.sync IS 'what a sync was asked for, from its first change of the target until its end';

CREATE TABLE IF NOT EXISTS pgconvoy.before (
    migration text PRIMARY KEY REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    target    jsonb NOT NULL,
    backup    text
);
COMMENT ON COLUMN pgconvoy.before.backup IS 'id of the backup that was made for the migration, in --data-dir of the target agent';
COMMENT ON TABLE pgconvoy.before IS 'the target as it was when the migration was planned: what pgconvoy rollback returns to';

CREATE TABLE IF NOT EXISTS pgconvoy.tables (
    migration     text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    oid           oid NOT NULL,
    schema        text NOT NULL,
    name          text NOT NULL,
    plan          jsonb NOT NULL,
    snapshot      text,
    source_rows   bigint,
    source_bytes  bigint,
    source_digest text,
    target_rows   bigint,
    target_bytes  bigint,
    target_digest text,
    verified_at   timestamptz,
    left_rows     bigint,
    left_bytes    bigint,
    left_digest   text,
    converge      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (migration, oid)
);
COMMENT ON COLUMN pgconvoy.tables.oid IS 'at the source';
COMMENT ON COLUMN pgconvoy.tables.source_digest IS 'read by the source agent under the snapshot; null: the sum of the parts';
COMMENT ON COLUMN pgconvoy.tables.target_digest IS 'read back by the target agent';
COMMENT ON COLUMN pgconvoy.tables.left_digest IS 'as the migration or its last sync left the table: whoever writes to it later makes it another';
COMMENT ON COLUMN pgconvoy.tables.converge IS 'holds rows of several snapshots: is synced before its keys are built';

CREATE TABLE IF NOT EXISTS pgconvoy.parts (
    migration         text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    table_oid         oid NOT NULL,
    number            int NOT NULL,
    snapshot          text NOT NULL,
    rows              bigint,
    bytes             bigint,
    digest            text,
    wire_bytes        bigint,
    started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    committed_at      timestamptz,
    PRIMARY KEY (migration, table_oid, number, snapshot)
);
COMMENT ON COLUMN pgconvoy.parts.wire_bytes IS 'as they came over the network: compressed';
COMMENT ON TABLE pgconvoy.parts IS 'one row per loaded part, committed in one transaction with the part''s rows';

-- Unlogged itself: a crash that empties unlogged tables empties this one too.
CREATE UNLOGGED TABLE IF NOT EXISTS pgconvoy.unlogged_parts (
    migration text NOT NULL,
    table_oid oid NOT NULL,
    number    int NOT NULL,
    PRIMARY KEY (migration, table_oid, number)
);
COMMENT ON TABLE pgconvoy.unlogged_parts IS 'parts of unlogged tables that are still there';

CREATE TABLE IF NOT EXISTS pgconvoy.syncs (
    migration    text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    table_oid    oid NOT NULL,
    snapshot     text NOT NULL,
    how          text CHECK (how IN ('equal', 'rows', 'copy')),
    inserted     bigint,
    changed      bigint,
    deleted      bigint,
    wire_bytes   bigint,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    committed_at timestamptz,
    PRIMARY KEY (migration, table_oid, snapshot)
);
COMMENT ON TABLE pgconvoy.syncs IS 'one row per table that was brought to a snapshot, committed in one transaction with its rows';

CREATE TABLE IF NOT EXISTS pgconvoy.large_objects (
    migration text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    oid       oid NOT NULL,
    surplus   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (migration, oid)
);
COMMENT ON TABLE pgconvoy.large_objects IS 'large objects that the migration made, committed in one transaction with their part';
COMMENT ON COLUMN pgconvoy.large_objects.surplus IS 'the source has it no more: about to be unlinked';

CREATE TABLE IF NOT EXISTS pgconvoy.objects (
    migration     text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    bucket        text NOT NULL,
    name          text NOT NULL,
    mark          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('copied', 'missing', 'refused')),
    bytes         bigint,
    digest        text,
    version       text,
    wire_bytes    bigint,
    target_bytes  bigint,
    target_digest text,
    started_at    timestamptz NOT NULL,
    done_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at   timestamptz,
    PRIMARY KEY (migration, bucket, name)
);
COMMENT ON TABLE pgconvoy.objects IS 'one row per file of a storage bucket, committed in one transaction with what was put right of its row in storage.objects';
COMMENT ON COLUMN pgconvoy.objects.mark IS 'of the source''s row that was copied: version, etag and size';
COMMENT ON COLUMN pgconvoy.objects.state IS 'copied; missing: the source has a row and no file; refused: the target''s Storage API does not take it';
COMMENT ON COLUMN pgconvoy.objects.digest IS 'XXH3-128 of the bytes as the source agent read them';
COMMENT ON COLUMN pgconvoy.objects.version IS 'of the target''s row: the Storage API gives each upload its own, and finds the file by it';
COMMENT ON COLUMN pgconvoy.objects.target_digest IS 'as the target agent read the file back through the Storage API; null with verified_at: it was not there';

CREATE TABLE IF NOT EXISTS pgconvoy.steps (
    migration   text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    number      int NOT NULL,
    kind        text NOT NULL,
    object      text NOT NULL,
    work        jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'running', 'done', 'failed')),
    error       text,
    started_at  timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (migration, number)
);
COMMENT ON TABLE pgconvoy.steps IS 'DDL and the like; whether a step is done is looked up in the catalog before it is run again';

CREATE TABLE IF NOT EXISTS pgconvoy.roles (
    migration  text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    name       text NOT NULL,
    lent_to    text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration, name)
);
COMMENT ON TABLE pgconvoy.roles IS 'one row per created role, committed in one transaction with it; they stay after pgconvoy clean';
COMMENT ON COLUMN pgconvoy.roles.lent_to IS 'the loading role, made a member to give objects to the role; until pgconvoy clean';

CREATE TABLE IF NOT EXISTS pgconvoy.findings (
    migration    text NOT NULL REFERENCES pgconvoy.migrations ON DELETE CASCADE,
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    severity     text NOT NULL,
    code         text NOT NULL,
    object       text NOT NULL,
    message      text NOT NULL,
    source_value text NOT NULL DEFAULT '',
    target_value text NOT NULL DEFAULT '',
    hint         text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS findings_by_object ON pgconvoy.findings (migration, code, object);
