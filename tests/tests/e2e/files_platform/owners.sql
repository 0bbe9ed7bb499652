-- After a level's objects: the services own them.
ALTER SCHEMA storage OWNER TO supabase_storage_admin;
DO $$
DECLARE o record;
BEGIN
    FOR o IN SELECT format('ALTER TABLE %s OWNER TO supabase_%s_admin', c.oid::regclass, n.nspname) AS sql
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname IN ('auth', 'storage')
             UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO supabase_%s_admin', p.oid::regprocedure, n.nspname)
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('auth', 'storage')
    LOOP EXECUTE o.sql; END LOOP;
END $$;
