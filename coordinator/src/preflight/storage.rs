//! Whether both ends' Storage APIs can be used, looked at before anything changes.
use pgconvoy_proto::facts::StorageFacts;
use pgconvoy_proto::model::{Finding, Selection, parse_json};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use super::{blocker, info, warning};
use crate::ends::{Ends, said};
use crate::objects::TABLE;
use crate::text::bytes;

/// Of a storage service that nobody has told otherwise.
const USUAL_LIMIT: u64 = 50 << 20;

pub async fn findings(ends: &Ends, selection: &Selection) -> anyhow::Result<Vec<Finding>> {
    let (mut source, mut target) = (ends.source.clone(), ends.target.clone());
    let request = || wire::StorageFactsRequest {};
    let (source, target) = tokio::join!(
        source.storage_facts(request()),
        target.storage_facts(request())
    );
    let source = source.map_err(said("source"))?.into_inner().facts;
    let target = target.map_err(said("target"))?.into_inner().facts;
    let (source, target): (StorageFacts, StorageFacts) =
        (parse_json(&source)?, parse_json(&target)?);
    let mut found = Vec::new();
    found.extend(api("source", &source));
    found.extend(api("target", &target));
    if source.place.is_ok() && source.place == target.place {
        let message =
            "both agents were given the same Storage API: each file would be written over itself";
        found.push(
            blocker("storage-same", "agents", message)
                .hint("each agent needs --supabase-url and key of its own end"),
        );
    }
    if !Filter::new(selection)?.admits(TABLE.0, TABLE.1) {
        found.push(
            blocker(
                "storage-not-selected",
                "storage.objects",
                "--storage-objects, and the rows that say which files there are, are left out",
            )
            .hint("leave --storage-objects out, or select storage.objects and storage.buckets"),
        );
    }
    found.extend(files(&source));
    Ok(found)
}

fn api(end: &str, facts: &StorageFacts) -> Option<Finding> {
    let agent = format!("{end} agent");
    match (&facts.place, &facts.buckets) {
        (Err(why), _) => Some(
            blocker(
                "storage-access",
                agent,
                format!("--storage-objects, and the agent cannot use the Storage API of its end: {why}"),
            )
            .hint(
                "start it with --supabase-url URL and, in its environment, SUPABASE_SERVICE_ROLE_KEY (or --supabase-key-file FILE): those of its \
                 own end",
            ),
        ),
        (Ok(place), Err(said)) => Some(
            blocker("storage-api", agent, format!("{place} does not list its buckets: {said}"))
                .hint("is it the project's address, and the key its service role key?"),
        ),
        (Ok(place), Ok(_)) => strange(end, place, &facts.strange),
    }
}

/// The API of another project takes and gives files just as well.
fn strange(end: &str, place: &str, strange: &Result<String, String>) -> Option<Finding> {
    let agent = format!("{end} agent");
    match strange {
        Ok(nothing) if nothing.is_empty() => None,
        Ok(what) => Some(
            blocker(
                "storage-elsewhere",
                agent,
                format!("{place} is not the Storage API of the {end} database, whose buckets are others: {what}"),
            )
            .hint(format!(
                "give the {end} agent the --supabase-url and the key of the project whose database it is connected to"
            )),
        ),
        Err(why) => Some(warning(
            "storage-elsewhere",
            agent,
            format!("whether {place} is the Storage API of the {end} database could not be looked at: {why}"),
        )),
    }
}

fn files(source: &StorageFacts) -> Vec<Finding> {
    let (count, size) = match &source.objects {
        Ok(objects) => *objects,
        Err(why) => {
            let what = format!("--storage-objects, and the source's files cannot be listed: {why}");
            return vec![blocker("storage-objects", "storage.objects", what)];
        }
    };
    let what = format!(
        "{count} files, {}, the largest {}",
        bytes(size),
        bytes(source.largest)
    );
    let mut found = vec![info("storage-files", "storage.objects", what)];
    if source.versions > 0 {
        let what = format!(
            "{} rows are of earlier versions of files, or say that one was deleted: the rows are carried, those files are not",
            source.versions
        );
        found.push(warning("file-versions", "storage.objects", what).hint(
            "the Storage API gives the current version of a file by its name: download earlier ones yourself, if they matter",
        ));
    }
    if source.largest > USUAL_LIMIT {
        found.push(
            warning(
                "file-size-limit",
                "target's Storage API",
                format!(
                    "it takes files of up to {} unless it is told otherwise, the largest has {}",
                    bytes(USUAL_LIMIT),
                    bytes(source.largest)
                ),
            )
            .hint(format!(
                "set FILE_SIZE_LIMIT of the target's storage service to at least {} bytes",
                source.largest
            )),
        );
    }
    found
}
