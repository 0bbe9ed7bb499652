//! What both ends have in a platform's schemas, and have differently.
use pgconvoy_proto::model::{Finding, Named, Selection};

use super::catalogs;
use super::reprint::Printer;
use crate::compare::Difference;
use crate::compare::level::level;
use crate::ends::Ends;
use crate::events::Reporter;
use crate::platform::{Ground, Scope};

/// But for what is `carried`, which is compared with everything else. And what could not be compared.
pub async fn shared(
    ends: &Ends,
    ground: &Ground,
    scope: &Scope,
    carried: &[Named],
    reporter: &Reporter,
) -> anyhow::Result<(Vec<Difference>, Vec<Finding>)> {
    let managed = Selection {
        include_schema: ground.platform.managed_schemas.clone(),
        ..Selection::default()
    };
    let (mut source, mut target) =
        catalogs::both(ends, &[&managed, &scope.selection], "", reporter).await?;
    let printer = Printer::of(ends, "", &source, &target, reporter);
    level(&mut source, &mut target, scope.left_out, None);
    printer
        .settle(ground.shared(&source, &target, carried))
        .await
}
