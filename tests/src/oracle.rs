//! A judge that is none of ours: pg_dump of both ends, and a fingerprint of every relation by PostgreSQL's own md5.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use pgconvoy_coordinator::demo::server::Server;

use crate::pair::{DATABASE, Pair};
use crate::{corpus, majors, say_aloud};

/// Lines of a table are kept for the message up to this many bytes; past it only their sum is.
const LINES_KEPT: usize = 4 << 20;

impl Pair {
    /// Schema and rows are the same at both ends, by pg_dump and by fingerprint. Across majors the target is compared with what
    /// `pg_dump | psql` makes of the source on the target's server.
    ///
    /// # Panics
    /// When they are not; the message shows what differs.
    #[track_caller]
    pub fn assert_equal_ends(&self) {
        let [source, target] = [&self.source, &self.target];
        if source.installation().major == target.installation().major {
            return assert_equal(source, target);
        }
        match majors::newest_clients() {
            Some(clients) => assert_as_pg_dump_makes_it(source, target, &clients),
            None => say_aloud("the newest clients are not there: left out pg_dump as the judge"),
        }
    }
}

/// [`Pair::assert_equal_ends`] for two servers.
///
/// # Panics
/// When they are not equal.
#[track_caller]
pub fn assert_equal(source: &Server, target: &Server) {
    let difference = dumps_differ(source, target).expect("pg_dump of both ends");
    assert!(
        difference.is_empty(),
        "pg_dump finds differences:\n{difference}"
    );
    let difference = fingerprints_differ(source, target).expect("fingerprints of both ends");
    assert!(
        difference.is_empty(),
        "the fingerprints differ:\n{difference}"
    );
}

/// The target's [`DATABASE`] is what `pg_dump | psql` makes of the source's on the same server: servers of two majors spell views
/// and constraints differently, one server spells them alike. And the fingerprints of both ends are equal.
///
/// # Panics
/// When they are not equal.
#[track_caller]
fn assert_as_pg_dump_makes_it(source: &Server, target: &Server, clients: &Path) {
    make_reference(source, target, clients).expect("pg_dump | psql");
    let reference = Dump::of(target, REFERENCE).expect("pg_dump of the reference");
    let migrated = Dump::of(target, DATABASE).expect("pg_dump of the target");
    let difference = differ(reference, migrated);
    assert!(
        difference.is_empty(),
        "pg_dump finds differences (source: made by pg_dump | psql):\n{difference}"
    );
    let difference = fingerprints_differ(source, target).expect("fingerprints of both ends");
    assert!(
        difference.is_empty(),
        "the fingerprints differ:\n{difference}"
    );
}

/// Made by PostgreSQL's own tools on the target's server.
const REFERENCE: &str = "reference";

fn make_reference(source: &Server, target: &Server, clients: &Path) -> Result<()> {
    target.create_database(REFERENCE)?;
    let mut dump = Command::new(clients.join("pg_dump"))
        .args(["--dbname", &source.url(DATABASE)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = dump.stdout.take().context("stdout is piped")?;
    let mut psql = Command::new(clients.join("psql"));
    // No ON_ERROR_STOP: an older server does not know every setting that a newer pg_dump writes.
    let restored = psql
        .args(["-X", "-q", "-d", &target.url(REFERENCE)])
        .stdin(output)
        .stdout(Stdio::null())
        .output()?;
    ensure!(dump.wait()?.success(), "pg_dump failed");
    let complaints = String::from_utf8_lossy(&restored.stderr).into_owned();
    let serious: Vec<&str> = complaints
        .lines()
        .filter(|line| line.contains("ERROR:") && !line.contains("transaction_timeout"))
        .collect();
    ensure!(serious.is_empty(), "{}", serious.join("\n"));
    // pg_dump takes it for initdb's own, which 15 changed, and leaves it as the target has it; pgconvoy keeps owner and grants.
    if source.installation().major >= 15 && target.installation().major < 15 {
        target.psql(
            REFERENCE,
            "ALTER SCHEMA public OWNER TO pg_database_owner; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        )?;
    }
    Ok(())
}

/// What pg_dump shows at one end only; empty when the ends are equal.
pub fn dumps_differ(source: &Server, target: &Server) -> Result<String> {
    Ok(differ(
        Dump::of(source, DATABASE)?,
        Dump::of(target, DATABASE)?,
    ))
}

fn differ(source: Dump, target: Dump) -> String {
    let mut difference = only_in("source", &source.entries, &target.entries);
    difference += &only_in("target", &target.entries, &source.entries);
    for (table, rows) in &source.tables {
        match target.tables.get(table) {
            None => difference += &format!("rows of {table}: only at the source\n"),
            Some(others) if (others.count, others.sum) == (rows.count, rows.sum) => {}
            Some(others) => difference += &rows.against(table, others),
        }
    }
    for table in target
        .tables
        .keys()
        .filter(|table| !source.tables.contains_key(*table))
    {
        difference += &format!("rows of {table}: only at the target\n");
    }
    difference
}

/// Leaves of hash partitions: a row's leaf may depend on the OID of its enum value. Their root has the same rows.
const DRIFTING_LEAVES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_partitioned_table p, pg_partition_tree(p.partrelid) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.partstrat = 'h' AND t.isleaf";

/// The corpus' fingerprint.sql at both ends. Nothing when it is not there, which is said aloud.
pub fn fingerprints_differ(source: &Server, target: &Server) -> Result<String> {
    let Some(script) = corpus::file("fingerprint.sql", "the comparison of fingerprints") else {
        return Ok(String::new());
    };
    let fingerprint = |server: &Server| -> Result<Vec<String>> {
        let lines = server.psql_file(DATABASE, &script)?;
        let drifting = server.psql(DATABASE, DRIFTING_LEAVES)?;
        let drifting: Vec<&str> = drifting.lines().collect();
        let ours = |line: &&str| line.starts_with("pgconvoy.");
        let drifts = |line: &&str| {
            line.split_once("|r|")
                .is_some_and(|(name, _)| drifting.contains(&name))
        };
        Ok(lines
            .lines()
            .filter(|line| !ours(line) && !drifts(line))
            // Which names need quotes is another matter in every major.
            .map(|line| line.replace('"', ""))
            .collect())
    };
    let (source, target) = (fingerprint(source)?, fingerprint(target)?);
    Ok(only_in("source", &source, &target) + &only_in("target", &target, &source))
}

fn only_in(end: &str, here: &[String], there: &[String]) -> String {
    here.iter()
        .filter(|entry| !there.contains(entry))
        .map(|entry| format!("only at the {end}: {entry}\n"))
        .collect()
}

/// A dump without what may legally differ: order, and names of tools.
#[derive(Debug, Default)]
struct Dump {
    /// Schema: one string for each object. Data: the statements beside COPY.
    entries: Vec<String>,
    /// By COPY command, which has the columns in it.
    tables: BTreeMap<String, Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    count: u64,
    /// Of the lines' hashes: in any order the same.
    sum: u128,
    lines: Vec<String>,
    kept: usize,
}

impl Dump {
    fn of(server: &Server, database: &str) -> Result<Self> {
        let mut dump = Self::default();
        dump.read_schema(&run_pg_dump(server, database, &["--schema-only"])?);
        dump.read_rows(server, database)?;
        dump.entries.sort();
        Ok(dump)
    }

    /// Entries are told apart by the comments that pg_dump writes above each.
    fn read_schema(&mut self, text: &str) {
        let mut entry = Vec::new();
        for line in text.lines() {
            if line.starts_with("-- Name: ") {
                self.finish_entry(&mut entry);
            }
            let noise = line.is_empty()
                || line == "--"
                || line.starts_with("\\restrict")
                || line.starts_with("\\unrestrict")
                || line.starts_with("-- Dumped ")
                || line.starts_with("-- PostgreSQL database dump");
            if !noise {
                entry.push(line.to_owned());
            }
        }
        self.finish_entry(&mut entry);
    }

    fn finish_entry(&mut self, lines: &mut Vec<String>) {
        // One object's grants are a set.
        if lines.first().is_some_and(|header| {
            header.contains("Type: ACL") || header.contains("Type: DEFAULT ACL")
        }) {
            lines.sort();
        }
        if !lines.is_empty() {
            self.entries.push(lines.join("\n"));
        }
        lines.clear();
    }

    /// As a stream: it may be larger than memory.
    fn read_rows(&mut self, server: &Server, database: &str) -> Result<()> {
        // Through the root: which leaf a row is in may depend on OIDs, and the leaves' bounds are in the schema.
        let mut command = pg_dump(
            server,
            database,
            &["--data-only", "--load-via-partition-root"],
        );
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut output =
            BufReader::with_capacity(1 << 20, process.stdout.take().context("stdout is piped")?);
        let mut copying: Option<String> = None;
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            match &copying {
                Some(_) if text == b"\\." => copying = None,
                Some(table) => self.tables.entry(table.clone()).or_default().add(text),
                None if text.starts_with(b"COPY ") => {
                    let table = String::from_utf8_lossy(text).into_owned();
                    self.tables.entry(table.clone()).or_default();
                    copying = Some(table);
                }
                None if text.starts_with(b"SELECT pg_catalog.setval")
                    || text.starts_with(b"REFRESH ") =>
                {
                    self.entries
                        .push(String::from_utf8_lossy(text).into_owned());
                }
                None => {}
            }
            line.clear();
        }
        ensure!(process.wait()?.success(), "pg_dump of the rows failed");
        Ok(())
    }
}

impl Rows {
    fn add(&mut self, line: &[u8]) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(line));
        if self.kept + line.len() <= LINES_KEPT {
            self.kept += line.len();
            self.lines.push(String::from_utf8_lossy(line).into_owned());
        }
    }

    fn against(&self, table: &str, others: &Self) -> String {
        let mut text = format!(
            "{table} {} rows at the source, {} at the target\n",
            self.count, others.count
        );
        let mut sorted = [self.lines.clone(), others.lines.clone()];
        sorted.iter_mut().for_each(|lines| lines.sort());
        let [source, target] = &sorted;
        let lone = |here: &[String], there: &[String]| -> Vec<String> {
            here.iter()
                .filter(|line| there.binary_search(line).is_err())
                .take(3)
                .cloned()
                .collect()
        };
        for line in lone(source, target) {
            text += &format!("  only at the source: {}\n", shorten(&line));
        }
        for line in lone(target, source) {
            text += &format!("  only at the target: {}\n", shorten(&line));
        }
        text
    }
}

fn hash(line: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(line);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn shorten(line: &str) -> String {
    line.chars().take(300).collect()
}

fn pg_dump(server: &Server, database: &str, arguments: &[&str]) -> Command {
    let mut command = server.installation().command("pg_dump");
    command
        .arg("--dbname")
        .arg(server.url(database))
        .args(["-N", "pgconvoy"])
        .args(arguments);
    command
}

fn run_pg_dump(server: &Server, database: &str, arguments: &[&str]) -> Result<String> {
    let output = pg_dump(server, database, arguments).output()?;
    ensure!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
