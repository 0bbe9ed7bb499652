-- What an application has made of it.
CREATE POLICY "everybody reads avatars" ON storage.objects FOR SELECT USING (bucket_id = 'avatars');
CREATE TABLE public.profiles (id int PRIMARY KEY, picture text);
INSERT INTO public.profiles SELECT n, 'avatars/' || n FROM generate_series(1, 100) n;
INSERT INTO storage.buckets (id, name, public) VALUES ('avatars', 'avatars', true), ('docs 2', 'docs 2', false);
