-- What the user has made, at the source.
INSERT INTO auth.users (id, aud, role, email, raw_app_meta_data)
    SELECT md5(i::text)::uuid, 'authenticated', 'authenticated', format('u%s@example.org', i), '{}' FROM generate_series(1, 30) i;
CREATE TABLE public.profiles (id uuid PRIMARY KEY REFERENCES auth.users, picture text);
INSERT INTO public.profiles SELECT id, 'avatars/' || id FROM auth.users;
CREATE TABLE public.uploads (name text, at timestamptz);
CREATE FUNCTION public.told() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.uploads VALUES (NEW.name, now()); RETURN NULL; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE ON storage.objects FOR EACH ROW EXECUTE FUNCTION public.told();
CREATE POLICY "everybody reads avatars" ON storage.objects FOR SELECT USING (bucket_id = 'avatars');
CREATE POLICY "own files" ON storage.objects FOR SELECT TO authenticated USING (owner = auth.uid());
INSERT INTO storage.buckets (id, name, public, created_at) VALUES ('avatars', 'avatars', true, '2024-01-02 03:04:05.678912'), ('docs 2', 'docs 2', false, '2024-01-02');
