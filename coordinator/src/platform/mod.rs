//! Databases that live on a platform: which one, whose is what, and what both ends can hold of it. A platform is data
//! (`proto/src/model/platform.rs`); what is decided here is pure, of what both agents tell.
mod again;
mod ask;
mod compare;
mod config;
mod defaults;
mod divide;
mod fit;
mod recognise;
mod scope;
mod shared;
mod skew;
mod told;

use std::collections::HashSet;

use pgconvoy_proto::facts::TargetFacts;
use pgconvoy_proto::model::{
    Count, Entry, Finding, HeldTable, Holding, Holdings, Named, Platform, Question, RowRule, Rules,
    Severity, Shape, Tenancy, Work,
};

pub use again::again;
pub use compare::leave_out;
pub use config::{Profile, stated};
pub use divide::Division;
pub use fit::{fit, read_tables};
pub use scope::Scope;
pub use shared::{Shared, When, made_extensions};
pub use told::{checklist, checklist_json};

use crate::compare::known::plain;
use crate::ends::Ends;
use crate::events::Reporter;
use crate::preflight::{EXTENSION_SCHEMA, Facts};
use crate::schema;
use ask::{count, fill, measure, name_rows};
use divide::{divide, more_policies};
use scope::by_entry;
use skew::Levels;

/// Both ends, as one platform's rules see them.
pub struct Ground {
    pub platform: Platform,
    rules: Rules,
    source: Holdings,
    target: Holdings,
}

/// What is decided of it.
pub struct Settled {
    pub tenancy: Tenancy,
    pub division: Division,
    pub findings: Vec<Finding>,
    /// Managed tables whose rows at the target are replaced.
    pub vacate: Vec<(String, String)>,
    /// Policies and triggers at the target that are replaced.
    pub clashes: Vec<Named>,
    /// What the target's default privileges become.
    defaults: Option<Work>,
    source_tables: HashSet<String>,
    target_tables: HashSet<String>,
}

/// What a platform is settled for.
pub struct Settling<'a> {
    pub ends: &'a Ends,
    pub scope: &'a Scope,
    pub force: bool,
    /// What a migration that is to be replaced has brought into the platform's schemas.
    pub earlier: &'a [Named],
    /// See [`Ground::look_at_shared`].
    pub shared: Shared,
}

impl Settled {
    /// Something at the target goes, and comes back with a backup only.
    pub fn replaces(&self) -> bool {
        !self.vacate.is_empty() || !self.clashes.is_empty()
    }
}

/// The platform that both ends live on; none, and perhaps why.
pub async fn look(
    ends: &Ends,
    profile: &Profile,
    stated: Option<Platform>,
) -> anyhow::Result<(Option<Ground>, Vec<Finding>)> {
    let mut found = Vec::new();
    for platform in config::candidates(profile, stated)? {
        let ground = Ground::read(ends, platform, "").await?;
        let (is_it, told) =
            recognise::recognise(&ground.platform, &ground.source, &ground.target, profile);
        found.extend(told);
        if is_it {
            return Ok((Some(ground), found));
        }
    }
    Ok((None, found))
}

impl Ground {
    /// `migration`: of a rehearsal the target is its scratch database.
    pub async fn read(ends: &Ends, platform: Platform, migration: &str) -> anyhow::Result<Self> {
        let (source, target) = ask::holdings(ends, &platform, migration).await?;
        Ok(Self {
            rules: platform.rules()?,
            platform,
            source,
            target,
        })
    }

    /// Of the source: those too that the target has, which a scratch database beside it need not be allowed.
    pub fn extensions(&self) -> Vec<String> {
        let names = self.source.extensions.iter().map(|(name, _)| name);
        names.cloned().collect()
    }

    /// The same with a rehearsal's scratch database in the target's place: what its services have made is there as in the target. Extensions
    /// that are `refused` there are taken for made, so that nobody makes them; their tables are not there.
    pub async fn of_scratch(
        self,
        ends: &Ends,
        rehearsal: &str,
        refused: &[String],
    ) -> anyhow::Result<Self> {
        let mut scratch = Self::read(ends, self.platform, rehearsal).await?;
        scratch.target.versions = self.target.versions;
        let of_source = scratch.source.objects.iter();
        let refused = of_source.filter(|object| {
            object.kind == "extension" && refused.contains(&plain(&object.identity))
        });
        scratch.target.objects.extend(refused.cloned());
        Ok(scratch)
    }

    /// What both ends have in the platform's schemas, and have differently. Of the target itself: a rehearsal's scratch database has not all of it.
    pub async fn look_at_shared(
        &self,
        ends: &Ends,
        scope: &Scope,
        force: bool,
        reporter: &Reporter,
    ) -> anyhow::Result<Shared> {
        // Definitions stay whatever they are.
        if scope.skip_schema {
            return Ok(Shared::default());
        }
        let carried = self.divide(scope).carried;
        let shared = schema::shared(ends, self, scope, &carried, reporter).await?;
        let (differences, unclear) = shared;
        let mut shared = self.judge_shared(&differences, When::Before { force });
        shared.findings.extend(unclear);
        Ok(shared)
    }

    pub fn divide(&self, scope: &Scope) -> Division {
        divide(&self.rules, &self.source, &self.target, scope)
    }

    /// Takes out of the facts what is the platform's own affair.
    pub fn settle_facts(&self, facts: &mut Facts) {
        let managed = |name: &String| self.is_left_table(name);
        facts.source.unreadable.retain(|name| !managed(name));
        facts.source.filtered_by_rls.retain(|name| !managed(name));
        facts.source.forced_rls.retain(|name| !managed(name));
        let tables = &mut facts.source.extension_tables;
        tables.retain(|(name, _)| !managed(name));
        let reserved = |role: &str| self.rules.is_reserved(role);
        let there: HashSet<&str> = self.target.roles.iter().map(String::as_str).collect();
        facts.source.roles.retain(|(role, _)| !reserved(role));
        let carried = &mut facts.source.carried;
        carried
            .roles
            .retain(|role| !reserved(&role.name) || there.contains(role.name.as_str()));
        let kept: HashSet<String> = carried.names().into_iter().collect();
        let is_users = |role: &str| !reserved(role);
        carried
            .memberships
            .retain(|m| (is_users(&m.role) || is_users(&m.member)) && kept.contains(&m.member));
        carried.parameters.retain(|p| is_users(&p.grant.grantee));
    }

    /// Names as facts have them: `schema.table`, quoted where needed.
    fn is_left_table(&self, name: &str) -> bool {
        let name = name.replace('"', "");
        let managed = name
            .split('.')
            .next()
            .is_some_and(|s| self.rules.is_managed(s));
        managed
            && matches!(
                self.rules.rows_of(&name),
                RowRule::Never | RowRule::Ephemeral
            )
    }

    /// Roles that are at the target already are never altered; that the platform's own differ is no surprise.
    pub fn settle_findings(&self, findings: &mut Vec<Finding>) {
        for finding in findings.iter_mut() {
            let role = finding.object.split(' ').next().unwrap_or_default();
            if finding.code == "role-differs" && self.rules.is_reserved(role) {
                finding.severity = Severity::Info;
            }
            // Where a platform has its extensions is its own affair: that of what names them is too.
            let schemas = [&finding.source_value, &finding.target_value];
            let is_own = schemas.iter().all(|schema| self.rules.is_managed(schema));
            if finding.code == EXTENSION_SCHEMA && is_own {
                finding.severity = Severity::Warning;
            }
        }
        // Those that the source has too are the platform's, or become the source's.
        let defaults = self.target.default_privileges.iter();
        let own: HashSet<String> = defaults
            .filter(|of| !self.source.roles.contains(&of.role))
            .map(|of| plain(&of.identity()))
            .collect();
        let were_there = "default-privileges-were-there";
        findings.retain(|f| f.code != were_there || own.contains(&plain(&f.object)));
    }

    /// Whose is what, what both ends can hold of the rows, and what would be lost.
    pub async fn settle(
        &self,
        target: &mut TargetFacts,
        asked: Settling<'_>,
    ) -> anyhow::Result<Settled> {
        let (ends, force, shared) = (asked.ends, asked.force, asked.shared);
        let scope = asked.scope;
        let division = match force && (target.is_in_use() || !shared.clashes.is_empty()) {
            true => divide(
                &self.rules,
                &self.source,
                &self.replaced(&[asked.earlier, &shared.clashes].concat(), scope),
                scope,
            ),
            false => self.divide(scope),
        };
        let judged = self.judge(ends, &division, force).await?;
        let there = self.target.roles.iter().collect::<HashSet<_>>();
        let absent = self.source.roles.iter();
        let absent = absent.filter(|role| self.rules.is_reserved(role) && !there.contains(role));
        let mut schemas = [self.source.schemas.clone(), self.target.schemas.clone()].concat();
        schemas.sort();
        schemas.dedup();
        let mut platform = self.platform.clone();
        fill(ends, &mut platform.outside).await?;
        let tenancy = Tenancy {
            platform,
            carried: division.carried.clone(),
            theirs: division.theirs.clone(),
            sequences: self.sequences(&division, &judged.shapes),
            shapes: judged.shapes,
            absent_roles: absent.cloned().collect(),
            schemas,
        };
        let held = held(target, &tenancy);
        let counts = count(ends, &held).await?;
        target.tables.retain(|(name, _)| {
            !name
                .split('.')
                .next()
                .is_some_and(|s| self.rules.is_managed(s))
        });
        let mut findings = told::ground(&self.platform, &self.source, &self.target, &division);
        findings.extend(judged.findings);
        name_rows(ends, &self.platform.fixed, &mut findings).await?;
        // Also those stay that would have gone, had the source one of their name.
        findings.extend(more_policies(&self.source, &self.target, scope));
        findings.extend(told::role(target));
        findings.extend(told::held(&held, &counts, force));
        findings.extend(self.sealed(ends).await?);
        findings.extend(shared.findings);
        let both = (&self.source, &self.target);
        let defaults = defaults::work(&self.rules, both, &tenancy.absent_roles, scope);
        if let Some(work) = defaults.as_ref().filter(|_| !scope.skip_schema) {
            findings.extend(defaults::told(work, &self.target));
        }
        Ok(Settled {
            defaults,
            tenancy,
            division,
            findings,
            vacate: held,
            clashes: shared.clashes,
            source_tables: tables(&self.source, scope),
            target_tables: tables(&self.target, scope),
        })
    }

    /// What of the rows both ends can hold, and what would be lost.
    async fn judge(
        &self,
        ends: &Ends,
        division: &Division,
        force: bool,
    ) -> anyhow::Result<skew::Judged> {
        let questions = skew::questions(&self.platform, &self.rules, &division.tables);
        let counted = measure(ends, &questions).await?;
        let at_source = |column: &str| self.source.version(column).map(str::to_owned);
        let at_target = |column: &str| self.target.version(column).map(str::to_owned);
        let levels = Levels {
            platform: &self.platform,
            source: &at_source,
            target: &at_target,
        };
        let (rules, tables) = (&self.rules, &division.tables);
        Ok(skew::judge(&levels, rules, tables, &counted, force))
    }

    /// The target without what is replaced in schemas that stay: triggers whose functions go, policies, and what is `named`.
    fn replaced(&self, named: &[Named], scope: &Scope) -> Holdings {
        let there = by_entry(&self.target);
        let mut target = self.target.clone();
        let goes = |object: &Holding| match object.kind.as_str() {
            _ if object.extension.is_some() || !scope.admits(&there, object) => false,
            "schema" | "publication relation" | "publication namespace" => false,
            _ if named.contains(&object.named()) => true,
            "policy" => true,
            "trigger" => {
                let function = object.function.as_ref();
                function.is_some_and(|(schema, ..)| !self.rules.is_managed(schema))
            }
            _ => false,
        };
        target.objects.retain(|object| !goes(object));
        target
    }

    /// Those of tables whose rows are carried, by their columns or by their defaults, and that the target has.
    fn sequences(&self, division: &Division, shapes: &[Shape]) -> Vec<String> {
        let carried: HashSet<Entry> = division
            .tables
            .iter()
            .filter(|(table, _)| {
                shapes
                    .iter()
                    .any(|s| s.schema == table.schema && s.name == table.name)
            })
            .map(|(table, _)| table.entry)
            .collect();
        let there = |identity: &str| {
            let mut objects = self.target.objects.iter();
            objects.any(|o| o.kind == "sequence" && o.identity == identity)
        };
        let of_carried = |object: &Holding| match object.of {
            Some(of) => carried.contains(&of),
            None => {
                !object.feeds.is_empty() && object.feeds.iter().all(|fed| carried.contains(fed))
            }
        };
        let numbering = self.source.objects.iter().filter(|object| {
            object.kind == "sequence"
                && of_carried(object)
                && (object.extension.is_some() || there(&object.identity))
        });
        numbering
            .map(|object| object.identity.replace('"', ""))
            .collect()
    }

    async fn sealed(&self, ends: &Ends) -> anyhow::Result<Vec<Finding>> {
        let there: Vec<_> = self
            .platform
            .sealed
            .iter()
            .filter(|told| self.source.table(&told.what).is_some())
            .collect();
        let questions: Vec<Question> = there
            .iter()
            .filter_map(|told| self.source.table(&told.what))
            .map(|table| Question {
                schema: table.schema.clone(),
                name: table.name.clone(),
                counts: vec![Count::Rows],
            })
            .collect();
        let counted = measure(ends, &questions).await?;
        Ok(told::sealed(&there, &counted))
    }
}

fn tables(end: &Holdings, scope: &Scope) -> HashSet<String> {
    let chosen = end.tables.iter().filter(|table| scope.admits_table(table));
    chosen.map(HeldTable::plain).collect()
}

/// Tables whose rows are carried, and that hold some at the target.
fn held(target: &TargetFacts, tenancy: &Tenancy) -> Vec<(String, String)> {
    let holds = |name: &str| {
        target
            .tables
            .iter()
            .any(|(table, rows)| *rows && table == name)
    };
    let shapes = tenancy.shapes.iter();
    let held = shapes.filter(|shape| holds(&format!("{}.{}", shape.schema, shape.name)));
    held.map(|shape| (shape.schema.clone(), shape.name.clone()))
        .collect()
}
