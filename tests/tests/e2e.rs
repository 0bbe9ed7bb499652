//! End to end: what pgconvoy promises, on real PostgreSQL servers. One binary, one module per topic.
#[path = "e2e/access.rs"]
mod access;
#[path = "e2e/artefacts.rs"]
mod artefacts;
#[path = "e2e/backup.rs"]
mod backup;
#[path = "e2e/backup_elsewhere.rs"]
mod backup_elsewhere;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/by_hand.rs"]
mod by_hand;
#[path = "e2e/checks.rs"]
mod checks;
#[path = "e2e/commands.rs"]
mod commands;
#[path = "e2e/database.rs"]
mod database;
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/depot.rs"]
mod depot;
#[path = "e2e/detailed.rs"]
mod detailed;
#[path = "e2e/extension.rs"]
mod extension;
#[path = "e2e/files.rs"]
mod files;
#[path = "e2e/files_elsewhere.rs"]
mod files_elsewhere;
#[path = "e2e/files_faults.rs"]
mod files_faults;
#[path = "e2e/files_full.rs"]
mod files_full;
#[path = "e2e/files_kill.rs"]
mod files_kill;
#[path = "e2e/files_platform.rs"]
mod files_platform;
#[path = "e2e/identity.rs"]
mod identity;
#[path = "e2e/judge.rs"]
mod judge;
#[path = "e2e/keys.rs"]
mod keys;
#[path = "e2e/kill.rs"]
mod kill;
#[path = "e2e/kill_steps.rs"]
mod kill_steps;
#[path = "e2e/large_objects.rs"]
mod large_objects;
#[path = "e2e/leases.rs"]
mod leases;
#[path = "e2e/locks.rs"]
mod locks;
#[path = "e2e/migrate.rs"]
mod migrate;
#[path = "e2e/monitor.rs"]
mod monitor;
#[path = "e2e/mutations.rs"]
mod mutations;
#[path = "e2e/older.rs"]
mod older;
#[path = "e2e/options.rs"]
mod options;
#[path = "e2e/order.rs"]
mod order;
#[path = "e2e/platform.rs"]
mod platform;
#[path = "e2e/platform_target.rs"]
mod platform_target;
#[path = "e2e/preflight.rs"]
mod preflight;
#[path = "e2e/printed.rs"]
mod printed;
#[path = "e2e/rehearse.rs"]
mod rehearse;
#[path = "e2e/roles.rs"]
mod roles;
#[path = "e2e/rollback.rs"]
mod rollback;
#[path = "e2e/runbook.rs"]
mod runbook;
#[path = "e2e/secrets.rs"]
mod secrets;
#[path = "e2e/seen.rs"]
mod seen;
#[path = "e2e/stops.rs"]
mod stops;
#[path = "e2e/supabase.rs"]
mod supabase;
#[path = "e2e/sync.rs"]
mod sync;
#[path = "e2e/sync_kill.rs"]
mod sync_kill;
#[path = "e2e/sync_large.rs"]
mod sync_large;
#[path = "e2e/sync_random.rs"]
mod sync_random;
#[path = "e2e/system_grants.rs"]
mod system_grants;
#[path = "e2e/values.rs"]
mod values;
#[path = "e2e/verify.rs"]
mod verify;
#[path = "e2e/versions.rs"]
mod versions;
#[path = "e2e/watch.rs"]
mod watch;
#[path = "e2e/wire.rs"]
mod wire;
