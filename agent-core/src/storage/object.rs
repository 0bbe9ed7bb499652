//! How a URL names a file.
use pgconvoy_proto::model::object::Object;

use super::Error;

/// Segments of a path: `before`, the bucket, and the name's own. No URL says `.` or `..`: whoever reads it takes that for a step in the path.
pub fn segments<'a>(before: &[&'a str], object: &'a Object) -> Result<Vec<&'a str>, Error> {
    let own = std::iter::once(object.bucket.as_str()).chain(object.name.split('/'));
    let mut segments = before.to_vec();
    segments.extend(own);
    if segments.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Error::Refused(
            "no URL can name it: a part of its name is `.` or `..`".into(),
        ));
    }
    Ok(segments)
}
