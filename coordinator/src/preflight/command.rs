//! The command: the checklist before a migration. It looks longer than `migrate` does, and changes nothing.
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::survey::{SourceSurvey, TableSize};
use serde_json::{Value, json};

use super::estimate::{self, Estimate};
use super::{Facts, Intent, activity, gather, info, is_blocked};
use crate::Ended;
use crate::cli::{Global, PreflightArgs};
use crate::effort;
use crate::ends::{self, Usage};
use crate::events::{Event, Reporter};
use crate::left_out::LeftOut;
use crate::platform::{self, Scope, Settling};
use crate::run_dir;
use crate::text::duration;
use crate::unknown;
use crate::verdict::Verdict;

pub async fn preflight(args: PreflightArgs, global: &Global, reporter: &Reporter) -> Ended {
    let (parent, config) = (global.run_dir.as_path(), global.config.as_deref());
    let sample_ms = u32::try_from(args.sample.as_millis())
        .ok()
        .filter(|ms| *ms <= pgconvoy_proto::survey::LONGEST_SAMPLE_MS)
        .ok_or_else(|| Usage("--sample: at most 1m".into()))?;
    let mut ends = ends::connect(&args.ends).await?;
    let selection = args.filters.selection();
    let stated = platform::stated(config)?;
    let (ground, mut of_platform) = platform::look(&ends, &args.profile.profile, stated).await?;
    let mut facts = gather(&mut ends, &selection, args.roles, ground.as_ref()).await?;
    if let Some(ground) = &ground {
        let scope = Scope::new(&selection, LeftOut::default())?.skip_schema(args.skip_schema);
        let asked = Settling {
            ends: &ends,
            scope: &scope,
            force: false,
            earlier: &[],
            shared: ground
                .look_at_shared(&ends, &scope, false, reporter)
                .await?,
        };
        let settled = ground.settle(&mut facts.target, asked).await?;
        of_platform.extend(settled.findings);
    }
    let intent = Intent {
        skip_schema: args.skip_schema,
        roles: args.roles,
        ..Intent::default()
    };
    let mut findings = super::findings(&facts, intent);
    findings.extend(unknown::at_source(&facts, &selection));
    if let Some(ground) = &ground {
        ground.settle_findings(&mut findings);
    }
    findings.extend(of_platform);
    findings.extend(unfinished(&facts));
    if args.storage_objects {
        findings.extend(super::storage::findings(&ends, &selection).await?);
    }
    findings.extend(activity::run_dir(parent, run_dir::is_writable(parent)));
    let mut told = json!({});
    if args.critical_only {
        findings.retain(|finding| finding.severity == Severity::Blocker);
    } else {
        let source = ends.source_survey(&selection, sample_ms).await?;
        let target = ends.target_survey().await?;
        findings.extend(activity::findings(&source, &target));
        let estimate = estimated(&facts, &source);
        findings.push(in_words(&estimate));
        told = json!({
            "tables": source.tables.iter().map(table).collect::<Vec<_>>(),
            "source": source, "target": target, "estimate": estimate,
            "link": {
                "bytes_per_second": facts.link.bytes as f64 / facts.link.seconds.max(1e-6),
                "round_trip_seconds": facts.link.round_trip_seconds,
            },
        });
        // They are told by themselves.
        if let Some(source) = told["source"].as_object_mut() {
            source.remove("tables");
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in &findings {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    let (verdict, words) = match is_blocked(&findings) {
        true => (Verdict::Blocked, "blocked: nothing was changed"),
        false => (Verdict::Ok, "ready: nothing was changed"),
    };
    reporter.line(words);
    told["findings"] = json!(findings);
    Ok((verdict, told))
}

fn unfinished(facts: &Facts) -> Option<Finding> {
    let (id, phase) = facts.target.unfinished.as_ref()?;
    let what = format!("a migration is unfinished, in phase {phase}");
    Some(super::blocker("unfinished", id.clone(), what).hint("pgconvoy resume"))
}

/// With as many streams as `migrate` would use, and as it would compress.
fn estimated(facts: &Facts, source: &SourceSurvey) -> Estimate {
    let effort = effort::usual(facts);
    let rate = estimate::rate(&facts.link, effort.streams, effort.compression > 0);
    estimate::estimate(source.tables.iter().map(|table| table.bytes).sum(), rate)
}

fn in_words(estimate: &Estimate) -> Finding {
    let what = format!(
        "about {} until it is proven, of which the rows' way takes {}; the application stands still as long, or with migrate \
         --then-sync for about {}",
        duration(estimate.total_seconds),
        duration(estimate.copy_seconds),
        duration(estimate.downtime_with_sync_seconds)
    );
    info("estimate", "duration and downtime", what)
        .hint("an estimate, from sizes and the measured link: pgconvoy plan says more")
}

fn table(table: &TableSize) -> Value {
    json!({
        "schema": table.schema, "table": table.name, "rows": table.estimated_rows, "rows_are_estimated": true,
        "size_bytes": table.bytes,
    })
}
