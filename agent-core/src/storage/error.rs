//! What the Storage API says against a request, and what may be done about it.
//!
//! Its errors come as JSON, most of them with HTTP status 400 and the status that is meant inside: `{"statusCode":"404","error":"not_found",
//! "message":"Object not found"}`.
use std::error::Error as _;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong, expired, or not that of the service role.
    #[error("the Storage API refuses the key: {0}")]
    Key(String),
    #[error("{0}")]
    NotFound(String),
    /// Larger than FILE_SIZE_LIMIT, or than the bucket allows.
    #[error("{0}")]
    TooLarge(String),
    /// For good: the name, the type.
    #[error("{0}")]
    Refused(String),
    /// Busy, failing, or not to be reached: it may pass. `after`: when it wants to be asked again.
    #[error("{said}")]
    Passing {
        said: String,
        after: Option<Duration>,
    },
    /// The file is another one than when its download began.
    #[error("it changed while it was read")]
    Changed,
    /// The API forgot an upload that had begun: the file is to be sent again.
    #[error("the upload was lost: {0}")]
    Lost(String),
}

impl Error {
    pub(super) fn passing(said: impl Into<String>) -> Self {
        let said = said.into();
        Self::Passing { said, after: None }
    }

    pub(super) fn unreachable(error: &reqwest::Error) -> Self {
        let mut said = match error {
            error if error.is_connect() => "the Storage API cannot be reached".to_owned(),
            error if error.is_timeout() => "the Storage API does not answer".to_owned(),
            _ => "the connection with the Storage API broke".to_owned(),
        };
        let mut cause = error.source();
        while let Some(inner) = cause {
            said = format!("{said}: {inner}");
            cause = inner.source();
        }
        Self::passing(said)
    }
}

/// An error's text is read so far.
const LONGEST_BODY: usize = 16 << 10;
/// And told so far.
const LONGEST_TEXT: usize = 300;

pub async fn checked(mut answer: Response) -> Result<Response, Error> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let (status, after) = (answer.status(), retry_after(&answer));
    let mut body = Vec::new();
    while body.len() < LONGEST_BODY {
        match answer.chunk().await {
            Ok(Some(more)) => body.extend_from_slice(&more),
            // What there is of it tells enough.
            Ok(None) | Err(_) => break,
        }
    }
    Err(judged(status, after, &body))
}

fn judged(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Error {
    let body: Value = serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
    let meant = meant(&body).unwrap_or(status.as_u16());
    let said = format!("{meant}: {}", text(&body, status));
    match meant {
        401 | 403 => Error::Key(said),
        400 if said.to_ascii_lowercase().contains("jwt") => Error::Key(said),
        404 => Error::NotFound(said),
        413 => Error::TooLarge(said),
        // 409 and 423: somebody else holds the object's lock.
        408 | 409 | 423 | 425 | 429 | 500.. => Error::Passing { said, after },
        _ => Error::Refused(said),
    }
}

fn meant(body: &Value) -> Option<u16> {
    match body.get("statusCode")? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        _ => None,
    }
}

fn text(body: &Value, status: StatusCode) -> String {
    let field = |name| body.get(name).and_then(Value::as_str);
    let words: Vec<&str> = ["error", "code", "message"]
        .into_iter()
        .filter_map(field)
        .collect();
    let whole = match (words.is_empty(), body.as_str()) {
        (false, _) => words.join(": "),
        (true, Some(text)) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => status.canonical_reason().unwrap_or("no reason").to_owned(),
    };
    whole.chars().take(LONGEST_TEXT).collect()
}

/// In seconds; a date is as good as none: clocks differ.
fn retry_after(answer: &Response) -> Option<Duration> {
    let value = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Error {
        judged(
            StatusCode::from_u16(status).unwrap_or_default(),
            None,
            body.as_bytes(),
        )
    }

    #[test]
    fn the_status_that_is_meant_is_inside() {
        let not_found = r#"{"statusCode":"404","error":"not_found","message":"Object not found"}"#;
        assert!(matches!(of(400, not_found), Error::NotFound(_)));
        let too_large = r#"{"statusCode":"413","error":"Payload too large","message":"The object exceeded the maximum allowed size"}"#;
        assert!(matches!(of(400, too_large), Error::TooLarge(_)));
    }

    #[test]
    fn a_gateway_speaks_for_itself() {
        assert!(matches!(
            of(401, r#"{"message":"Invalid authentication credentials"}"#),
            Error::Key(_)
        ));
        assert!(matches!(
            of(413, "<html>too large</html>"),
            Error::TooLarge(_)
        ));
        assert!(matches!(of(502, ""), Error::Passing { .. }));
        assert!(matches!(of(429, "{}"), Error::Passing { .. }));
    }

    #[test]
    fn a_token_that_is_none_is_a_wrong_key() {
        let jwt = r#"{"statusCode":"400","error":"InvalidJWT","message":"jwt malformed"}"#;
        assert!(matches!(of(400, jwt), Error::Key(_)));
        let name = r#"{"statusCode":"400","error":"InvalidKey","message":"Invalid key: a#b"}"#;
        assert!(matches!(of(400, name), Error::Refused(_)));
    }

    #[test]
    fn a_long_error_is_cut() {
        assert!(of(400, &"x".repeat(5000)).to_string().len() < 400);
    }
}
