//! Rows in PostgreSQL, bytes in a folder, under bucket, name and version. Blocks of zeros take no room.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A file to upload.
#[derive(Clone, Debug)]
pub struct Contents {
    pub sparse: Sparse,
    pub content_type: String,
    pub cache_control: String,
}

impl Contents {
    pub fn new(bytes: u64, seed: u64) -> Self {
        Self {
            sparse: Sparse { bytes, seed },
            content_type: "image/png".into(),
            cache_control: "max-age=3600".into(),
        }
    }
}

/// A file of any size that takes little room: 4 KiB of noise at its beginning and in every MiB, zeros between.
#[derive(Clone, Copy, Debug)]
pub struct Sparse {
    pub bytes: u64,
    pub seed: u64,
}

const NOISE: u64 = 4096;
const EVERY: u64 = 1 << 20;

impl Sparse {
    pub(super) fn write(self, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.bytes)?;
        let mut state = self.seed | 1;
        let mut at = 0;
        while at < self.bytes {
            file.seek(SeekFrom::Start(at))?;
            let noise: Vec<u8> = (0..NOISE.min(self.bytes - at))
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            file.write_all(&noise)?;
            at += EVERY;
        }
        Ok(())
    }
}

/// What a row says.
pub struct Found {
    pub version: String,
    pub metadata: Value,
}

pub struct Store {
    rows: Client,
    folder: TempDir,
}

impl Store {
    pub async fn open(database_url: &str) -> Result<Self> {
        let (rows, connection) = tokio_postgres::connect(database_url, NoTls).await?;
        tokio::spawn(async move {
            // It ends with its server, which a test may kill.
            connection.await.ok();
        });
        rows.batch_execute("SET storage.allow_delete_query = 'true'")
            .await?;
        let folder = tempfile::Builder::new()
            .prefix("pgconvoy-storage-")
            .tempdir()?;
        Ok(Self { rows, folder })
    }

    pub fn rows(&self) -> &Client {
        &self.rows
    }

    /// Of bytes that are still coming.
    pub fn partial(&self, id: &str) -> PathBuf {
        let name = format!("partial-{:032x}", xxh3_128(id.as_bytes()));
        self.folder.path().join(name)
    }

    /// Names may be what no file system takes.
    pub fn path(&self, bucket: &str, name: &str, version: &str) -> PathBuf {
        let key = format!("{bucket}\0{name}\0{version}");
        let name = format!("{:032x}", xxh3_128(key.as_bytes()));
        self.folder.path().join(name)
    }

    pub fn files(&self) -> Result<usize> {
        let names = std::fs::read_dir(self.folder.path())?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Result<Vec<String>> = names.collect();
        let whole = names?
            .into_iter()
            .filter(|name| !name.starts_with("partial-"));
        Ok(whole.count())
    }

    pub async fn find(&self, bucket: &str, name: &str) -> Result<Option<Found>> {
        let row = self
            .rows
            .query_opt(
                "SELECT coalesce(version, ''), coalesce(metadata, '{}') FROM storage.objects WHERE bucket_id = $1 AND name = $2",
                &[&bucket, &name],
            )
            .await?;
        Ok(row.map(|row| Found {
            version: row.get(0),
            metadata: row.get(1),
        }))
    }

    pub async fn upload(&self, bucket: &str, name: &str, contents: &Contents) -> Result<()> {
        let part = self.partial(&format!("{bucket}/{name}"));
        contents.sparse.write(&part)?;
        self.complete(bucket, name, &part, contents, false).await
    }

    /// The bytes are all there: they get their place, and the row is written, as the real one does.
    pub async fn complete(
        &self,
        bucket: &str,
        name: &str,
        part: &Path,
        contents: &Contents,
        without_rows: bool,
    ) -> Result<()> {
        let before = self.find(bucket, name).await?.map(|found| found.version);
        let (size, etag) = digest(part)?;
        let version = match without_rows {
            true => before.clone().unwrap_or_default(),
            false => Uuid::now_v7().to_string(),
        };
        std::fs::rename(part, self.path(bucket, name, &version))?;
        if without_rows {
            return Ok(());
        }
        let metadata = json!({
            "eTag": etag, "size": size, "mimetype": contents.content_type, "cacheControl": contents.cache_control,
            "lastModified": jiff::Timestamp::now().to_string(), "contentLength": size, "httpStatusCode": 200,
        });
        self.rows
            .execute(
                "INSERT INTO storage.objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)
                 VALUES ($1, $2, NULL, NULL, $3, $4, NULL)
                 ON CONFLICT (bucket_id, name) DO UPDATE SET version = excluded.version, metadata = excluded.metadata,
                     owner = excluded.owner, owner_id = excluded.owner_id, user_metadata = excluded.user_metadata",
                &[&bucket, &name, &version, &metadata],
            )
            .await
            .context("writing the row")?;
        if let Some(before) = before {
            // A row that was copied without its file has none.
            std::fs::remove_file(self.path(bucket, name, &before)).ok();
        }
        Ok(())
    }

    pub async fn remove(&self, bucket: &str, names: &[String]) -> Result<()> {
        let rows = self
            .rows
            .query(
                "DELETE FROM storage.objects WHERE bucket_id = $1 AND name = ANY ($2) RETURNING name, coalesce(version, '')",
                &[&bucket, &names],
            )
            .await?;
        for row in rows {
            let path = self.path(bucket, row.get(0), row.get(1));
            std::fs::remove_file(path).ok();
        }
        Ok(())
    }
}

/// Size, and what stands for its MD5.
fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut digest = Xxh3::new();
    let mut block = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((size, format!("\"{:032x}\"", digest.digest128())));
        }
        size += read as u64;
        digest.update(&block[..read]);
    }
}

/// Appends to a file what comes; zeros are holes.
pub struct Appender {
    file: File,
    at: u64,
}

impl Appender {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(false)
            .write(true)
            .truncate(false)
            .open(path)?;
        let at = file.metadata()?.len();
        Ok(Self { file, at })
    }

    pub fn append(&mut self, data: &[u8]) -> Result<()> {
        for block in data.chunks(NOISE as usize) {
            if block.iter().any(|byte| *byte != 0) {
                self.file.seek(SeekFrom::Start(self.at))?;
                self.file.write_all(block)?;
            }
            self.at += block.len() as u64;
        }
        self.file.set_len(self.at)?;
        Ok(())
    }

    pub fn at(&self) -> u64 {
        self.at
    }
}
