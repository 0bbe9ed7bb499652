//! The Storage API of this end, over HTTP: where the files are that the rows of storage.objects speak of.
//!
//! Invariant 5 (credentials stay home): the service role key comes from the environment or a file, never from a flag, is sent to the API's
//! own address and nowhere else (redirects are not followed), and no `Debug` and no error shows it.
mod bucket;
mod download;
mod error;
mod facts;
mod object;
mod patience;
mod read;
mod resumable;
mod tls;
mod upload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use tonic::Status;

pub use download::Download;
pub use error::Error;
pub use facts::facts;
pub use read::read_objects;
pub use upload::{Contents, Upload};

/// Of the rows `o` of storage.objects those whose file the API has under bucket and name: not an earlier version of one, nor the mark that one
/// was deleted, where the service's level has such.
pub const CURRENT: &str = "(to_jsonb(o) ->> 'archived_at' IS NULL AND coalesce(to_jsonb(o) ->> 'is_delete_marker', 'false') <> 'true')";

const KEY_VARIABLE: &str = "SUPABASE_SERVICE_ROLE_KEY";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// No answer, or no further byte, for so long, and the connection counts as cut. A piece of an upload may be long on its way before it is
/// answered.
const SILENCE: Duration = Duration::from_secs(300);
/// A peer that is gone without a word is noticed earlier.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, clap::Args)]
pub struct StorageArgs {
    /// Supabase at this end, for --storage-objects: https://REF.supabase.co, or the gateway of a self-hosted one. Its service role key comes
    /// from the environment variable SUPABASE_SERVICE_ROLE_KEY or from --supabase-key-file
    #[arg(long, env = "SUPABASE_URL", value_name = "URL")]
    pub supabase_url: Option<String>,
    /// File that holds the service role key and nothing else
    #[arg(long, env = "SUPABASE_KEY_FILE", value_name = "FILE")]
    pub supabase_key_file: Option<PathBuf>,
}

/// What the agent was started with.
#[derive(Clone, Debug)]
pub enum Access {
    Ready(Storage),
    /// Why the API cannot be asked.
    Lacking(String),
}

impl Access {
    /// What is lacking is told when files are asked for; what is wrong, at once.
    pub fn resolve(args: &StorageArgs) -> anyhow::Result<Self> {
        let key = key(
            args.supabase_key_file.as_deref(),
            std::env::var(KEY_VARIABLE).ok(),
        )?;
        let url = args
            .supabase_url
            .as_deref()
            .filter(|url| !url.trim().is_empty());
        let lacking = match (url, key) {
            (Some(url), Some(key)) => return Ok(Self::Ready(Storage::new(url, &key)?)),
            (None, None) => format!("neither --supabase-url nor {KEY_VARIABLE} is given"),
            (None, Some(_)) => "--supabase-url (SUPABASE_URL) is not given".into(),
            (Some(_), None) => {
                format!("there is no key: neither {KEY_VARIABLE} nor --supabase-key-file is given")
            }
        };
        Ok(Self::Lacking(lacking))
    }

    /// FAILED_PRECONDITION when the agent was not told where the API is, or has no key.
    pub fn ready(&self) -> Result<&Storage, Status> {
        match self {
            Self::Ready(storage) => Ok(storage),
            Self::Lacking(why) => Err(Status::failed_precondition(format!(
                "the Storage API cannot be asked: {why}"
            ))),
        }
    }
}

fn key(file: Option<&Path>, variable: Option<String>) -> anyhow::Result<Option<String>> {
    let key = match file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .with_context(|| format!("--supabase-key-file {}", file.display()))?,
        ),
        None => variable,
    };
    Ok(key
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty()))
}

#[derive(Clone)]
pub struct Storage {
    http: Client,
    /// https://example.org/storage/v1
    base: Url,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// `url`: of the project, without /storage/v1.
    pub fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        let base = base(url.trim())?;
        let headers = headers(key).ok_or_else(|| {
            anyhow::anyhow!(
                "the service role key has characters that no key has: it must be one line"
            )
        })?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls::config()?)
            .default_headers(headers)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .tcp_keepalive(KEEPALIVE)
            .build()
            .context("the HTTP client")?;
        Ok(Self { http, base })
    }

    /// Where it is: for people.
    pub fn place(&self) -> &str {
        self.base.as_str()
    }

    /// `segments` are names, and are escaped.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends it; an answer that is no success is an error.
    async fn ask(&self, request: RequestBuilder) -> Result<Response, Error> {
        let answer = request.send().await.map_err(|e| Error::unreachable(&e))?;
        error::checked(answer).await
    }

    /// Deletes files of one bucket with their rows. Those that are not there are no error.
    pub async fn remove(&self, bucket: &str, names: &[&str]) -> Result<(), Error> {
        let url = self.url(["object", bucket]);
        let body = serde_json::json!({ "prefixes": names }).to_string();
        let mut patience = patience::Patience::default();
        loop {
            let request = self
                .request(Method::DELETE, url.clone())
                .header("content-type", "application/json")
                .body(body.clone());
            match self.ask(request).await {
                Ok(_) | Err(Error::NotFound(_)) => return Ok(()),
                Err(error) => patience.bear(error).await?,
            }
        }
    }
}

fn base(url: &str) -> anyhow::Result<Url> {
    let told = "--supabase-url: the project's address, like https://abcdefgh.supabase.co";
    // The address is not repeated: who puts a password into it does not want it in a log.
    let mut base = Url::parse(url).map_err(|error| anyhow::anyhow!("{told} ({error})"))?;
    let plain = matches!(base.scheme(), "http" | "https")
        && base.username().is_empty()
        && base.password().is_none()
        && base.query().is_none()
        && base.fragment().is_none();
    anyhow::ensure!(plain && base.has_host(), "{told}, and nothing else");
    let path = base.path().trim_end_matches('/').to_owned();
    let path = path.strip_suffix("/storage/v1").unwrap_or(&path);
    base.set_path(&format!("{path}/storage/v1"));
    Ok(base)
}

/// A gateway wants the key as `apikey`, the API as a bearer token.
fn headers(key: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("apikey", key.to_owned()),
        (AUTHORIZATION.as_str(), format!("Bearer {key}")),
    ] {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.insert(reqwest::header::HeaderName::from_static(name), value);
    }
    // Bytes as they are stored: a gateway that compresses would hide their length.
    headers.insert("accept-encoding", HeaderValue::from_static("identity"));
    Some(headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::object::Object;

    use super::*;

    #[test]
    fn an_address_may_have_a_path_a_slash_and_the_api_s_own_path() {
        for (given, made) in [
            ("https://x.supabase.co", "https://x.supabase.co/storage/v1"),
            ("http://localhost:8000/", "http://localhost:8000/storage/v1"),
            ("https://x.org/sb/", "https://x.org/sb/storage/v1"),
            ("https://x.org/storage/v1/", "https://x.org/storage/v1"),
        ] {
            assert_eq!(base(given).unwrap().as_str(), made);
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_repeated() {
        for given in [
            "https://me:hush@x.org",
            "ftp://x.org",
            "x.org",
            "https://x.org/?key=hush",
        ] {
            let error = base(given).unwrap_err().to_string();
            assert!(
                error.contains("--supabase-url") && !error.contains("hush"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        let storage = Storage::new("https://x.org", "hush-hush").unwrap();
        assert!(!format!("{storage:?} {:?}", storage.http).contains("hush"));
        assert!(Storage::new("https://x.org", "two\nlines").is_err());
    }

    #[test]
    fn names_are_escaped_segment_by_segment() {
        let storage = Storage::new("http://h:1", "k").unwrap();
        let object = Object::new("my bucket", "a b/ü#?%+/c");
        let url = storage.url(object::segments(&["object"], &object).unwrap());
        assert_eq!(
            url.as_str(),
            "http://h:1/storage/v1/object/my%20bucket/a%20b/%C3%BC%23%3F%25+/c"
        );
    }
}
