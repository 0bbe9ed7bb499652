//! A Storage API as Supabase documents it: buckets, downloads with ranges, uploads whole and resumable, deletes, its errors; with rows in
//! PostgreSQL and bytes in a folder.
//!
//! What matters of the real one it does too: every upload is a new version, the bytes lie under the version that the row says, an upload writes
//! the row anew, and most errors come as status 400 with the one that is meant inside. Faults are injected on request.
mod answer;
mod faults;
mod objects;
mod resumable;
mod store;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use answer::{Body, error, json};
pub use faults::{Fault, Faults, Kind};
use store::Store;
pub use store::{Contents, Sparse};

/// What the API is told when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// FILE_SIZE_LIMIT
    pub file_size_limit: u64,
    /// The API leaves rows alone: nobody's, but a file that is there is there.
    pub without_rows: bool,
    /// PEM with certificate and key: it speaks TLS.
    pub tls: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_size_limit: 1 << 30,
            without_rows: false,
            tls: None,
        }
    }
}

/// Runs until it is dropped.
pub struct StorageApi {
    address: SocketAddr,
    scheme: &'static str,
    key: String,
    api: Arc<Api>,
    runtime: Option<Runtime>,
}

/// What all requests share.
struct Api {
    key: String,
    settings: Settings,
    store: Store,
    faults: Faults,
    seen: Mutex<Vec<Seen>>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Decoded, without /storage/v1.
    pub path: String,
    pub range: Option<String>,
}

impl StorageApi {
    /// With the rows of that database, which has the schema `storage`.
    pub fn start(database_url: &str, settings: Settings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let key = format!("service-role-key-{}", uuid::Uuid::now_v7());
        let api = Arc::new(Api {
            key: key.clone(),
            settings,
            store: runtime.block_on(Store::open(database_url))?,
            faults: Faults::default(),
            seen: Mutex::default(),
        });
        let tls = api.settings.tls.as_deref().map(acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(serve(listener, tls, api.clone()));
        Ok(Self {
            address,
            scheme,
            key,
            api,
            runtime: Some(runtime),
        })
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn faults(&self) -> &Faults {
        &self.api.faults
    }

    /// The requests until now.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.api.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As an application would have uploaded it.
    pub fn upload(&self, bucket: &str, name: &str, contents: &Contents) -> Result<()> {
        self.block_on(self.api.store.upload(bucket, name, contents))
    }

    /// The bytes of a file whose row is there and stays as it is.
    pub fn store(&self, bucket: &str, name: &str, contents: &Contents) -> Result<()> {
        contents.sparse.write(&self.file(bucket, name)?)
    }

    /// Where the bytes of a file are.
    pub fn file(&self, bucket: &str, name: &str) -> Result<PathBuf> {
        let found = self.block_on(self.api.store.find(bucket, name))?;
        let found = found.with_context(|| format!("no row of {bucket}/{name}"))?;
        Ok(self.api.store.path(bucket, name, &found.version))
    }

    /// How many files there are in the folder, whether or not a row speaks of them.
    pub fn files(&self) -> Result<usize> {
        self.api.store.files()
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref();
        runtime.expect("until it is dropped").block_on(work)
    }
}

impl Drop for StorageApi {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Tasks that still hold the folder end first.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn acceptor(bundle: &Path) -> Result<TlsAcceptor> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(bundle)?.collect();
    let key = PrivateKeyDer::from_pem_file(bundle)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates?, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (api, tls) = (api.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => speak(stream, api).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        speak(stream, api).await;
                    }
                }
            }
        });
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, api: Arc<Api>) {
    let service = service_fn(move |request| answer(api.clone(), request));
    // A connection that is cut ends with an error: that is what it is for.
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// The error of a service cuts its connection.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let path = decoded(request.uri().path());
    let header = |name: &str| {
        request
            .headers()
            .get(name)?
            .to_str()
            .ok()
            .map(str::to_owned)
    };
    let seen = Seen {
        method: request.method().to_string(),
        path: path.clone(),
        range: header("range"),
    };
    api.seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen);
    let known = header("apikey").as_deref() == Some(&api.key)
        && header("authorization") == Some(format!("Bearer {}", api.key));
    if !known {
        let body = r#"{"message":"Invalid authentication credentials"}"#;
        return Ok(json(401, body.into()));
    }
    let Some(mut struck) = api.faults.strike(request.method().as_str(), &path) else {
        return done(api, request, path, None).await;
    };
    match struck.kind.clone() {
        Kind::Answer {
            status,
            body,
            retry_after,
        } => {
            let mut answer = json(status, body);
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert("retry-after", seconds.into());
            }
            Ok(answer)
        }
        Kind::CutAfter(bytes) => done(api, request, path, Some(bytes)).await,
        Kind::Hold => {
            struck.wait().await;
            done(api, request, path, None).await
        }
        Kind::HoldAnswer => {
            let answer = done(api, request, path, None).await;
            struck.count();
            struck.wait().await;
            answer
        }
    }
}

/// In a task of its own: what has begun is brought to its end, also when the one who asked is gone.
async fn done(
    api: Arc<Api>,
    request: Request<Incoming>,
    path: String,
    cut: Option<u64>,
) -> Result<Response<Body>, Cut> {
    let work = async move { route(&api, request, &path, cut).await };
    tokio::spawn(work).await.unwrap_or(Err(Cut))
}

async fn route(
    api: &Api,
    request: Request<Incoming>,
    path: &str,
    cut: Option<u64>,
) -> Result<Response<Body>, Cut> {
    let method = request.method().clone();
    if method == Method::GET && path == "bucket" {
        return Ok(objects::buckets(api).await);
    }
    if let Some(name) = path.strip_prefix("object/authenticated/")
        && method == Method::GET
    {
        return Ok(objects::download(api, &request, name, cut).await);
    }
    if let Some(name) = path.strip_prefix("object/") {
        return match method {
            Method::POST => objects::upload(api, request, name, cut).await,
            Method::DELETE => Ok(objects::delete(api, request, name).await),
            _ => Ok(error(404, "not_found", "no such route")),
        };
    }
    match path.strip_prefix("upload/resumable") {
        Some(id) => resumable::answer(api, request, id.trim_start_matches('/'), cut).await,
        None => Ok(error(404, "not_found", "no such route")),
    }
}

fn decoded(path: &str) -> String {
    let path = path.strip_prefix("/storage/v1/").unwrap_or(path);
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// Errors that cannot be.
type Never = Infallible;
