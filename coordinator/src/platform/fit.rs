//! An inventory of the source, fitted to a platform: what is the platform's goes out, and of its tables the rows that both ends can hold
//! stay. Pure.
use std::collections::HashSet;

use pgconvoy_proto::model::{
    Entry, Format, Grant, Properties, Rules, SystemGrants, Table, Tenancy, Work,
};

use super::{Division, Settled};
use crate::compare::known::plain;
use crate::inventory::Inventory;

/// The catalog that tables are in; its OID is PostgreSQL's own and never another one (src/include/catalog/pg_class.h).
const PG_CLASS: u32 = 1259;

/// What every inventory of the migration's source needs: tables and positions.
pub fn fit(inventory: &mut Inventory, tenancy: &Tenancy) {
    let Ok(rules) = tenancy.platform.rules() else {
        unreachable!("it was compiled before it was kept")
    };
    inventory.tables.retain_mut(|table| {
        if !rules.is_managed(&table.schema) || is_users(tenancy, table) {
            return true;
        }
        match tenancy.shape(&table.schema, &table.name) {
            Some(_) => {
                take_shape(table, tenancy);
                true
            }
            None => false,
        }
    });
    for work in &mut inventory.works {
        match work {
            Work::Sequences { values } => values.retain(|value| {
                let name = format!("{}.{}", value.schema, value.name);
                !rules.is_managed(&value.schema)
                    || tenancy.sequences.contains(&name)
                    || is_carried(tenancy, "sequence", &name)
            }),
            Work::Refresh { views } => views.retain(|view| {
                let name = format!("{}.{}", view.schema, view.name);
                !rules.is_managed(&view.schema) || is_carried(tenancy, "materialized view", &name)
            }),
            _ => {}
        }
    }
    let idle = |work: &Work| match work {
        Work::Sequences { values } => values.is_empty(),
        Work::Refresh { views } => views.is_empty(),
        _ => false,
    };
    inventory.works.retain(|work| !idle(work));
}

/// Tables in managed schemas that are read, `schema.table`: of those that [`fit`] leaves.
pub fn read_tables(tenancy: &Tenancy) -> Vec<String> {
    let shapes = tenancy.shapes.iter();
    let shapes = shapes.map(|shape| format!("{}.{}", shape.schema, shape.name));
    let users = tenancy.carried.iter().filter(|named| named.kind == "table");
    shapes
        .chain(users.map(|named| plain(&named.identity)))
        .collect()
}

fn is_users(tenancy: &Tenancy, table: &Table) -> bool {
    is_carried(tenancy, "table", &table.to_string())
}

fn is_carried(tenancy: &Tenancy, kind: &str, name: &str) -> bool {
    let mut carried = tenancy.carried.iter();
    carried.any(|named| named.kind == kind && plain(&named.identity) == name)
}

fn take_shape(table: &mut Table, tenancy: &Tenancy) {
    let Some(shape) = tenancy.shape(&table.schema, &table.name) else {
        return;
    };
    let keeps = |column: &String| shape.columns.contains(column);
    if !table.columns[..table.key_columns].iter().all(keeps) {
        table.key_columns = 0;
    }
    table.columns.retain(keeps);
    table
        .generated
        .retain(|column| shape.generated.contains(column));
    if shape.as_text || table.columns.is_empty() {
        table.format = Format::Text;
    }
    let filters = table.filter.take().into_iter().chain(shape.filter.clone());
    let filters: Vec<String> = filters.map(|filter| format!("({filter})")).collect();
    table.filter = (!filters.is_empty()).then(|| filters.join(" AND "));
    table.fixed = shape.fixed.clone();
    table.managed = true;
}

impl Settled {
    /// What a plan is made of, of an inventory that is fitted: nothing that the target's services have made, and nothing for roles that are the platform's.
    pub fn apply(&self, inventory: &mut Inventory) {
        let Ok(rules) = self.tenancy.platform.rules() else {
            unreachable!("it was compiled before it was kept")
        };
        let stripping = Stripping {
            rules: &rules,
            left: &self.division.left,
            absent: self
                .tenancy
                .absent_roles
                .iter()
                .map(String::as_str)
                .collect(),
        };
        let planned: HashSet<String> = inventory.tables.iter().map(Table::to_string).collect();
        for work in &mut inventory.works {
            stripping.within(work);
        }
        inventory
            .works
            .retain(|work| stripping.keeps(work, &planned));
        inventory.skipped.extend(&self.division.left);
        inventory.findings.retain(|finding| {
            !is_about_platforms_code(&finding.code, &finding.object, &rules, &self.division)
        });
        if !self.vacate.is_empty() {
            inventory.works.push(Work::Vacate {
                tables: self.vacate.clone(),
            });
        }
        inventory.works.extend(self.defaults.clone());
        let derived = self.tenancy.platform.derived.iter();
        let missing = derived.filter(|derived| self.is_filled_here(&derived.of));
        inventory.works.extend(missing.cloned().map(Work::Derive));
        inventory.works.push(Work::ManagedKeys);
    }

    /// The target has it and the source has not.
    fn is_filled_here(&self, of: &str) -> bool {
        let parts: Vec<&str> = of.split('.').collect();
        let (schema, table) = (parts[0], parts.get(1).copied().unwrap_or_default());
        let Some(column) = parts.get(2) else {
            return self.target_tables.contains(of) && !self.source_tables.contains(of);
        };
        self.division.tables.iter().any(|(source, target)| {
            let has = target
                .as_ref()
                .is_some_and(|target| target.column(column).is_some());
            source.schema == schema
                && source.name == table
                && source.column(column).is_none()
                && has
        })
    }
}

/// Addresses in the platform's own functions are the platform's affair.
fn is_about_platforms_code(code: &str, object: &str, rules: &Rules, division: &Division) -> bool {
    let Some(function) = object
        .strip_prefix("function ")
        .filter(|_| code == "address-in-code")
    else {
        return false;
    };
    let function = plain(function);
    let managed = function
        .split('.')
        .next()
        .is_some_and(|schema| rules.is_managed(schema));
    let name = function.split('(').next().unwrap_or_default();
    let is_it = |identity: &str| plain(identity).split('(').next() == Some(name);
    managed && !division.carried.iter().any(|named| is_it(&named.identity))
}

struct Stripping<'a> {
    rules: &'a Rules,
    left: &'a HashSet<Entry>,
    absent: HashSet<&'a str>,
}

impl Stripping<'_> {
    fn within(&self, work: &mut Work) {
        match work {
            Work::Access { objects, .. } => {
                objects.retain(|object| !self.left.contains(&object.entry));
                for object in objects {
                    object.grants.retain(|grant| self.is_grantable(grant));
                    for (_, grants) in &mut object.column_grants {
                        grants.retain(|grant| self.is_grantable(grant));
                    }
                }
            }
            Work::PostData { made } => made.retain(|made| !self.left.contains(&made.entry)),
            Work::DropNotNull { columns } => {
                columns.retain(|column| !self.rules.is_managed(&column.schema));
            }
            Work::SystemGrants { changes } => self.system_grants(changes),
            Work::Roles(roles) => {
                let reserved = |role: &str| self.rules.is_reserved(role);
                roles.roles.retain(|role| !reserved(&role.name));
                roles.memberships.retain(|m| {
                    let absent = |role: &str| self.absent.contains(role);
                    let of_absent = absent(&m.role) || absent(&m.member);
                    let between_reserved = reserved(&m.role) && reserved(&m.member);
                    !(of_absent || between_reserved)
                });
                roles.parameters.retain(|p| !reserved(&p.grant.grantee));
            }
            Work::Database(properties) => self.database(properties),
            _ => {}
        }
    }

    fn is_grantable(&self, grant: &Grant) -> bool {
        ![&grant.grantee, &grant.grantor]
            .iter()
            .any(|role| self.absent.contains(role.as_str()))
    }

    /// What the platform's own roles may do with PostgreSQL's objects is its own affair.
    fn system_grants(&self, changes: &mut Vec<SystemGrants>) {
        let of_user = |grant: &Grant| !self.rules.is_reserved(&grant.grantee);
        for change in changes.iter_mut() {
            change.granted.retain(of_user);
            change.revoked.retain(of_user);
        }
        changes.retain(|change| !change.granted.is_empty() || !change.revoked.is_empty());
    }

    fn database(&self, properties: &mut Properties) {
        properties
            .role_settings
            .retain(|(role, _)| !self.rules.is_reserved(role));
        properties.grants.retain(|grant| self.is_grantable(grant));
    }

    fn keeps(&self, work: &Work, planned: &HashSet<String>) -> bool {
        let table = |oid: u32| Entry {
            class: PG_CLASS,
            oid,
        };
        match work {
            Work::Access { objects, .. } => !objects.is_empty(),
            Work::Index {
                entry, table: on, ..
            } => !self.left.contains(entry) && !self.left.contains(&table(*on)),
            Work::KeyIndex { table: on, .. } => !self.left.contains(&table(*on)),
            Work::ForeignKey(key) => !self.left.contains(&table(key.table_oid)),
            Work::Statistics { schema, name, .. } => {
                !self.rules.is_managed(schema) || planned.contains(&format!("{schema}.{name}"))
            }
            Work::DropNotNull { columns } => !columns.is_empty(),
            Work::SystemGrants { changes } => !changes.is_empty(),
            Work::Roles(roles) => !roles.is_empty(),
            _ => true,
        }
    }
}
