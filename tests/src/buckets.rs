//! A pair whose ends have buckets: each database with its Storage API, each agent with the address and the key of its own.
use std::collections::BTreeMap;

use anyhow::Result;
use xxhash_rust::xxh3::xxh3_128;

use crate::Pair;
use crate::pair::{DATABASE, Options};
use crate::storage_api::{Contents, Settings, StorageApi};

/// What the storage service makes of a database.
pub const STORAGE: &str = include_str!("storage_api/schema.sql");

pub struct Buckets {
    pub pair: Pair,
    pub source: StorageApi,
    pub target: StorageApi,
}

/// Files that are uploaded at once, unless it is said otherwise.
const MOST_STREAMS: usize = 8;

/// Columns that the source's rows keep at the target, and that all levels of the service have.
const ROWS: &str =
    "SELECT to_jsonb(o) - '{version,level,archived_at,is_delete_marker,is_versioned}'::text[]
    FROM storage.objects o ORDER BY bucket_id, name";

impl Buckets {
    /// The source has the schema `storage` and two buckets without files.
    pub fn new() -> Result<Self> {
        Self::with(Options::default(), Settings::default())
    }

    /// `settings`: of the target's API.
    pub fn with(options: Options, settings: Settings) -> Result<Self> {
        let pair = Pair::with(options)?;
        pair.at_source(STORAGE)?;
        pair.at_source(include_str!("storage_api/filled.sql"))?;
        Self::of(pair, settings)
    }

    /// The pair's databases may have the schema `storage`, with rows whose files come by [`Self::store_files`].
    pub fn of(mut pair: Pair, settings: Settings) -> Result<Self> {
        let source = StorageApi::start(&pair.source.url(DATABASE), Settings::default())?;
        let target = StorageApi::start(&pair.target.url(DATABASE), settings)?;
        // One key by the environment, the other by a file.
        pair.source_agent.set("SUPABASE_URL", &source.url());
        pair.source_agent
            .set("SUPABASE_SERVICE_ROLE_KEY", source.key());
        let file = pair.folder().join("target-key");
        std::fs::write(&file, format!("{}\n", target.key()))?;
        pair.target_agent.set("SUPABASE_URL", &target.url());
        pair.target_agent
            .set("SUPABASE_KEY_FILE", &file.display().to_string());
        pair.source_agent.restart()?;
        pair.target_agent.restart()?;
        Ok(Self {
            pair,
            source,
            target,
        })
    }

    /// Files of these sizes in the bucket `avatars`, called `0`, `1`...
    pub fn fill(&self, sizes: &[u64]) -> Result<()> {
        for (at, bytes) in sizes.iter().enumerate() {
            let contents = Contents::new(*bytes, at as u64 * 7 + 1);
            self.source.upload("avatars", &at.to_string(), &contents)?;
        }
        Ok(())
    }

    /// Bytes for each row of the source that is there: so many as it says.
    pub fn store_files(&self) -> Result<()> {
        let rows = self.pair.at_source(
            "SELECT bucket_id || E'\\t' || name || E'\\t' || (metadata ->> 'size') FROM storage.objects ORDER BY 1",
        )?;
        for (at, row) in rows.lines().enumerate() {
            let fields: Vec<&str> = row.split('\t').collect();
            let [bucket, name, bytes] = fields.as_slice() else {
                anyhow::bail!("three columns, not {row:?}");
            };
            let contents = Contents::new(bytes.parse()?, at as u64 * 7 + 1);
            self.source.store(bucket, name, &contents)?;
        }
        Ok(())
    }

    /// The target's store has all of so many files. An upload whose end nobody learned of may have left bytes that no row names: they are the
    /// API's own to sweep, as with the real one.
    ///
    /// # Panics
    /// When it has fewer, or more than uploads can have been cut off.
    #[track_caller]
    pub fn assert_stored(&self, files: usize, kills: usize) {
        let stored = self.target.files().expect("the store");
        assert!(
            (files..=files + kills * MOST_STREAMS).contains(&stored),
            "{stored} files are in the store, not {files}"
        );
    }

    /// Rows are alike, and the bytes that each API has of each file.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn assert_equal_files(&self) {
        let rows = |of: Result<String>| of.expect("the rows of files");
        assert_eq!(
            rows(self.pair.at_source(ROWS)),
            rows(self.pair.at_target(ROWS)),
            "rows of storage.objects"
        );
        let (source, target) = (self.digests(End::Source), self.digests(End::Target));
        assert!(!source.is_empty(), "there is no file to compare");
        assert_eq!(source, target, "bytes of the files");
    }

    /// Of each file as the end's API has it; none: it has no bytes of it.
    fn digests(&self, end: End) -> BTreeMap<String, Option<u128>> {
        let (api, names) = match end {
            End::Source => (&self.source, self.pair.at_source(NAMES)),
            End::Target => (&self.target, self.pair.at_target(NAMES)),
        };
        let names = names.expect("the names of files");
        let digest = |line: &str| {
            let (bucket, name) = line.split_once('\t').expect("two columns");
            let bytes = api.file(bucket, name).map(std::fs::read);
            let digest = bytes.expect("a row").ok().map(|bytes| xxh3_128(&bytes));
            (format!("{bucket}/{name}"), digest)
        };
        names.lines().map(digest).collect()
    }
}

enum End {
    Source,
    Target,
}

const NAMES: &str = "SELECT bucket_id || E'\\t' || name FROM storage.objects ORDER BY 1";
