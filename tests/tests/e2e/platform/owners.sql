-- After a level's objects: the services own them.
DO $$
DECLARE o record;
BEGIN
    FOR o IN SELECT format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, 'harbour_' || n.nspname) AS sql
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname IN ('core', 'files')
             UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO %I', p.oid::regprocedure, 'harbour_' || n.nspname)
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'files'
    LOOP EXECUTE o.sql; END LOOP;
END $$;
