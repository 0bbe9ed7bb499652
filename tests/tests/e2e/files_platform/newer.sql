-- The level at which files have versions.
INSERT INTO storage.migrations VALUES (63, 'object-versioning-core');
ALTER TABLE storage.objects ADD archived_at timestamptz, ADD is_delete_marker boolean NOT NULL DEFAULT false, ADD is_versioned boolean NOT NULL DEFAULT false;
