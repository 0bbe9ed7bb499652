-- The level that keeps a tree of prefixes beside the files: its triggers fire when the API writes.
INSERT INTO storage.migrations VALUES (43, 'prefixes');
ALTER TABLE storage.objects ADD level integer, ADD CONSTRAINT name_short CHECK (length(name) < 200);
CREATE TABLE storage.prefixes (bucket_id text REFERENCES storage.buckets, name text, level integer, PRIMARY KEY (bucket_id, name));
CREATE UNIQUE INDEX objects_bucket_id_level_idx ON storage.objects (bucket_id, level, name);
CREATE FUNCTION storage.get_level(name text) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT array_length(string_to_array(name, '/'), 1) $$;
CREATE FUNCTION storage.get_prefixes(name text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT ARRAY(SELECT array_to_string((string_to_array(name, '/'))[:n], '/')
                 FROM generate_series(1, array_length(string_to_array(name, '/'), 1) - 1) n) $$;
CREATE FUNCTION storage.objects_insert_prefix_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage.prefixes SELECT NEW.bucket_id, p, storage.get_level(p) FROM unnest(storage.get_prefixes(NEW.name)) p ON CONFLICT DO NOTHING;
    NEW.level := storage.get_level(NEW.name);
    RETURN NEW;
END $$;
CREATE TRIGGER objects_insert_create_prefix BEFORE INSERT ON storage.objects FOR EACH ROW EXECUTE FUNCTION storage.objects_insert_prefix_trigger();
