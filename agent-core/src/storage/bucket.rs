//! Buckets as the API lists them: what tells whether it is the API of this database.
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::patience::Patience;
use super::{Error, Storage};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub id: String,
    #[serde(default)]
    pub created_at: Option<String>,
}

impl Storage {
    /// All of them.
    pub async fn buckets(&self) -> Result<Vec<Bucket>, Error> {
        let mut patience = Patience::default();
        loop {
            match self.buckets_now().await {
                Err(error) => patience.bear(error).await?,
                listed => return listed,
            }
        }
    }

    /// Asked once.
    pub async fn buckets_now(&self) -> Result<Vec<Bucket>, Error> {
        let request = self.request(Method::GET, self.url(["bucket"]));
        let answer = self.ask(request).await?;
        let body = answer.text().await.map_err(|e| Error::unreachable(&e))?;
        serde_json::from_str(&body).map_err(|_| {
            Error::Refused("what answers there is no Storage API: it lists no buckets".into())
        })
    }
}

/// For [`STRANGE`].
pub fn json(buckets: &[Bucket]) -> String {
    pgconvoy_proto::model::to_json(&buckets)
}

/// Buckets that the API lists ($1, their JSON) and the database does not have so, or the other way round. The API may have a reason not to list
/// an empty one (it is of another kind), and gives times to the millisecond.
pub const STRANGE: &str = "
    WITH api AS (SELECT * FROM jsonb_to_recordset($1::text::jsonb) a (id text, created_at timestamptz)),
         own AS (SELECT b.id::text, (to_jsonb(b) ->> 'created_at')::timestamptz AS created_at FROM storage.buckets b)
    SELECT coalesce(a.id, b.id) || ': ' || CASE WHEN b.id IS NULL THEN 'only the API has it'
               WHEN a.id IS NULL THEN 'only the database has it'
               ELSE format('made at %s, says the API, and at %s, says the database', a.created_at, b.created_at) END
    FROM api a FULL JOIN own b ON b.id = a.id
    WHERE b.id IS NULL OR a.id IS NULL AND EXISTS (SELECT FROM storage.objects o WHERE o.bucket_id = b.id)
       OR abs(extract(epoch FROM a.created_at - b.created_at)) >= 1
    ORDER BY 1 LIMIT 5";
