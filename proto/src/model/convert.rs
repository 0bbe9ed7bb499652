//! The door: messages become domain types here, once, or are refused.
mod pair;

use super::{
    Definition, Digest, Entry, Finding, Format, Malformed, Part, Progress, Relation, RoleChoice,
    SchemaObject, Selection, Severity, Step, Table, parse_json, to_json,
};
use crate::wire;

impl TryFrom<wire::Digest> for Digest {
    type Error = Malformed;

    fn try_from(digest: wire::Digest) -> Result<Self, Malformed> {
        let sum = <[u8; 16]>::try_from(&digest.sum[..])
            .map_err(|_| Malformed::new("a digest whose sum is not 16 bytes"))?;
        Ok(Self {
            rows: digest.rows,
            bytes: digest.bytes,
            sum: u128::from_be_bytes(sum),
        })
    }
}

impl From<Digest> for wire::Digest {
    fn from(digest: Digest) -> Self {
        Self {
            rows: digest.rows,
            bytes: digest.bytes,
            sum: digest.sum.to_be_bytes().to_vec().into(),
        }
    }
}

impl TryFrom<wire::Table> for Table {
    type Error = Malformed;

    fn try_from(table: wire::Table) -> Result<Self, Malformed> {
        let format = match table.format() {
            wire::Format::Text => Format::Text,
            wire::Format::Binary => Format::Binary,
            wire::Format::Unspecified => return Err(Malformed::new("a table without format")),
        };
        let key_columns = table.key_columns as usize;
        if table.oid == 0 || table.name.is_empty() || key_columns > table.columns.len() {
            return Err(Malformed::new(
                "a table without name, or a key wider than it",
            ));
        }
        Ok(Self {
            oid: table.oid,
            schema: table.schema,
            name: table.name,
            relation: table.large_objects.into(),
            columns: table.columns,
            key_columns,
            format,
            filter: (!table.filter.is_empty()).then_some(table.filter),
            size_bytes: table.size_bytes,
            blocks: table.blocks,
            through_root: table.through_root,
            unlogged: table.unlogged,
            generated: table.generated,
            padded: table.padded,
            arrays: table.arrays,
            fixed: table
                .fixed
                .into_iter()
                .map(|fixed| (fixed.column, fixed.value))
                .collect(),
            managed: table.managed,
            of_extension: table.of_extension,
        })
    }
}

impl From<Table> for wire::Table {
    fn from(table: Table) -> Self {
        Self {
            oid: table.oid,
            schema: table.schema,
            name: table.name,
            columns: table.columns,
            key_columns: table.key_columns as u32,
            format: match table.format {
                Format::Text => wire::Format::Text.into(),
                Format::Binary => wire::Format::Binary.into(),
            },
            filter: table.filter.unwrap_or_default(),
            size_bytes: table.size_bytes,
            blocks: table.blocks,
            through_root: table.through_root,
            unlogged: table.unlogged,
            generated: table.generated,
            padded: table.padded,
            arrays: table.arrays,
            large_objects: table.relation.into(),
            fixed: table
                .fixed
                .into_iter()
                .map(|(column, value)| wire::FixedColumn { column, value })
                .collect(),
            managed: table.managed,
            of_extension: table.of_extension,
        }
    }
}

impl From<Option<wire::LargeObjects>> for Relation {
    fn from(large_objects: Option<wire::LargeObjects>) -> Self {
        match large_objects {
            None => Self::Table,
            Some(wire::LargeObjects { objects, slices }) => Self::LargeObjects { objects, slices },
        }
    }
}

impl From<Relation> for Option<wire::LargeObjects> {
    fn from(relation: Relation) -> Self {
        match relation {
            Relation::Table => None,
            Relation::LargeObjects { objects, slices } => {
                Some(wire::LargeObjects { objects, slices })
            }
        }
    }
}

impl TryFrom<wire::Part> for Part {
    type Error = Malformed;

    fn try_from(part: wire::Part) -> Result<Self, Malformed> {
        if part.end != 0 && part.end <= part.first {
            return Err(Malformed::new("a part that ends before it begins"));
        }
        Ok(Self {
            table: part.table,
            number: part.number,
            first: part.first,
            end: (part.end != 0).then_some(part.end),
        })
    }
}

impl From<Part> for wire::Part {
    fn from(part: Part) -> Self {
        Self {
            table: part.table,
            number: part.number,
            first: part.first,
            end: part.end.unwrap_or(0),
        }
    }
}

impl TryFrom<wire::Finding> for Finding {
    type Error = Malformed;

    fn try_from(finding: wire::Finding) -> Result<Self, Malformed> {
        use wire::finding::Severity as S;
        let severity = match finding.severity() {
            S::Info => Severity::Info,
            S::Warning => Severity::Warning,
            S::Difference => Severity::Difference,
            S::Blocker => Severity::Blocker,
            S::Unspecified => return Err(Malformed::new("a finding without severity")),
        };
        Ok(Self {
            severity,
            code: finding.code,
            object: finding.object,
            message: finding.message,
            source_value: finding.source_value,
            target_value: finding.target_value,
            hint: finding.hint,
        })
    }
}

impl From<Finding> for wire::Finding {
    fn from(finding: Finding) -> Self {
        use wire::finding::Severity as S;
        Self {
            severity: match finding.severity {
                Severity::Info => S::Info,
                Severity::Warning => S::Warning,
                Severity::Difference => S::Difference,
                Severity::Blocker => S::Blocker,
            }
            .into(),
            code: finding.code,
            object: finding.object,
            message: finding.message,
            source_value: finding.source_value,
            target_value: finding.target_value,
            hint: finding.hint,
        }
    }
}

impl TryFrom<wire::Step> for Step {
    type Error = Malformed;

    fn try_from(step: wire::Step) -> Result<Self, Malformed> {
        Ok(Self {
            number: step.number,
            work: parse_json(&step.work)?,
        })
    }
}

impl From<Step> for wire::Step {
    fn from(step: Step) -> Self {
        Self {
            number: step.number,
            work: to_json(&step.work),
        }
    }
}

impl From<wire::Selection> for Selection {
    fn from(selection: wire::Selection) -> Self {
        Self {
            include_schema: selection.include_schema,
            exclude_schema: selection.exclude_schema,
            include_table: selection.include_table,
            exclude_table: selection.exclude_table,
            skip_storage: selection.skip_storage,
        }
    }
}

impl From<Selection> for wire::Selection {
    fn from(selection: Selection) -> Self {
        Self {
            include_schema: selection.include_schema,
            exclude_schema: selection.exclude_schema,
            include_table: selection.include_table,
            exclude_table: selection.exclude_table,
            skip_storage: selection.skip_storage,
        }
    }
}

impl TryFrom<wire::RoleChoice> for RoleChoice {
    type Error = Malformed;

    fn try_from(choice: wire::RoleChoice) -> Result<Self, Malformed> {
        match choice {
            wire::RoleChoice::All => Ok(Self::All),
            wire::RoleChoice::Used => Ok(Self::Used),
            wire::RoleChoice::None => Ok(Self::None),
            wire::RoleChoice::Unspecified => Err(Malformed::new("no choice of roles")),
        }
    }
}

impl From<RoleChoice> for wire::RoleChoice {
    fn from(choice: RoleChoice) -> Self {
        match choice {
            RoleChoice::All => Self::All,
            RoleChoice::Used => Self::Used,
            RoleChoice::None => Self::None,
        }
    }
}

impl From<wire::Progress> for Progress {
    fn from(progress: wire::Progress) -> Self {
        Self {
            rows: progress.rows,
            bytes: progress.bytes,
            wire_bytes: progress.wire_bytes,
        }
    }
}

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> Self {
        Self {
            rows: progress.rows,
            bytes: progress.bytes,
            wire_bytes: progress.wire_bytes,
        }
    }
}

impl From<wire::ArchiveEntry> for Entry {
    fn from(entry: wire::ArchiveEntry) -> Self {
        Self {
            class: entry.class,
            oid: entry.oid,
        }
    }
}

impl From<Entry> for wire::ArchiveEntry {
    fn from(entry: Entry) -> Self {
        Self {
            class: entry.class,
            oid: entry.oid,
        }
    }
}

impl TryFrom<wire::SchemaObject> for SchemaObject {
    type Error = Malformed;

    fn try_from(object: wire::SchemaObject) -> Result<Self, Malformed> {
        if object.kind.is_empty() {
            return Err(Malformed::new("an object without kind"));
        }
        Ok(Self {
            kind: object.kind,
            identity: object.identity,
            parent: object.parent,
            properties: object
                .properties
                .into_iter()
                .map(|p| (p.name, p.value))
                .collect(),
        })
    }
}

impl From<SchemaObject> for wire::SchemaObject {
    fn from(object: SchemaObject) -> Self {
        Self {
            kind: object.kind,
            identity: object.identity,
            parent: object.parent,
            properties: object
                .properties
                .into_iter()
                .map(|(name, value)| wire::Property { name, value })
                .collect(),
        }
    }
}

impl From<wire::Definition> for Definition {
    fn from(definition: wire::Definition) -> Self {
        Self {
            object: definition.object,
            query: definition.query,
        }
    }
}

impl From<Definition> for wire::Definition {
    fn from(definition: Definition) -> Self {
        Self {
            object: definition.object,
            query: definition.query,
        }
    }
}
