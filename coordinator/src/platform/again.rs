//! A migration's platform, asked again: services are upgraded and rows are written meanwhile.
use std::collections::HashSet;

use pgconvoy_proto::model::{Finding, OF_PLATFORM, Selection, Tenancy};

use super::{Ground, Scope};
use crate::ends::Ends;
use crate::ledger::Ledger;
use crate::left_out::LeftOut;

/// What holds now.
pub struct Again {
    pub tenancy: Tenancy,
    /// What of the rows has no place at the target.
    pub losses: Vec<Finding>,
    /// Those of them that nobody was told of when the migration was begun, or synced the last time.
    pub news: Vec<Finding>,
    /// What earlier findings were about.
    pub objects: Vec<String>,
}

/// Of what is selected of the migration: the rest is not looked at. None: the migration knows no platform.
pub async fn again(
    ends: &Ends,
    ledger: &Ledger,
    selection: &Selection,
) -> anyhow::Result<Option<Again>> {
    let Some(tenancy) = &ledger.options.tenancy else {
        return Ok(None);
    };
    let ground = Ground::read(ends, tenancy.platform.clone(), &ledger.id).await?;
    let options = &ledger.options;
    let planned = Scope::new(&options.selection, LeftOut::by_migration(options))?;
    let chosen = Scope::new(selection, LeftOut::default())?;
    let division = ground.divide(&planned);
    let judged = ground.judge(ends, &division, true).await?;
    let is_loss = |finding: &&Finding| {
        OF_PLATFORM.contains(&finding.code.as_str()) && chosen.admits_name(&finding.object)
    };
    let earlier: HashSet<(&str, &str)> = ledger
        .findings
        .iter()
        .filter(is_loss)
        .map(|finding| (finding.code.as_str(), finding.object.as_str()))
        .collect();
    let losses: Vec<Finding> = judged
        .findings
        .into_iter()
        .filter(|f| is_loss(&f))
        .collect();
    let is_new = |f: &&Finding| !earlier.contains(&(f.code.as_str(), f.object.as_str()));
    let news = losses.iter().filter(is_new).cloned().collect();
    let objects = earlier
        .iter()
        .map(|(_, object)| (*object).to_owned())
        .collect();
    let mut tenancy = (**tenancy).clone();
    tenancy.sequences = ground.sequences(&division, &judged.shapes);
    tenancy.shapes = judged.shapes;
    Ok(Some(Again {
        tenancy,
        losses,
        news,
        objects,
    }))
}
