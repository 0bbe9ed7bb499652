//! What is said of the schemas: in the plan, in the report.
use pgconvoy_proto::facts::{SourceFacts, TargetFacts};
use pgconvoy_proto::model::{Finding, OF_SCHEMA, SCHEMA_COMPARED, Severity};
use serde_json::{Value, json};

use crate::compare::findings::WERE_THERE;
use crate::ledger::Ledger;

/// For `plan`: what the target had before the migration is not the migration's.
pub fn were_there(source: &SourceFacts, target: &TargetFacts) -> Vec<Finding> {
    let known = |name: &str| name == "plpgsql" || source.extensions.iter().any(|e| e.name == name);
    let installed = target.extensions_installed.iter();
    let extensions = installed.filter(|e| !known(&e.name)).map(|e| &e.name);
    let named = [
        extensions.collect(),
        target.default_privileges.iter().collect::<Vec<_>>(),
    ];
    let of_kind = |((kind, code), names): (&(&str, &str), Vec<&String>)| {
        let message =
            format!("the target has this {kind} already: what it is stays the target's own");
        let told = names
            .into_iter()
            .map(move |name| Finding::new(Severity::Info, code, name, &message));
        told.collect::<Vec<_>>()
    };
    WERE_THERE.iter().zip(named).flat_map(of_kind).collect()
}

/// The report's section; empty when the schemas were not compared.
pub fn text(ledger: &Ledger) -> String {
    let compared = ledger.findings.iter().find(|f| f.code == SCHEMA_COMPARED);
    compared.map_or_else(String::new, |f| format!("\nschema\n  {}\n", f.message))
}

/// The same for machines: how many objects of each kind, and how many findings of differences.
pub fn json(ledger: &Ledger) -> Value {
    let Some(compared) = ledger.findings.iter().find(|f| f.code == SCHEMA_COMPARED) else {
        return Value::Null;
    };
    let counts = &compared.source_value;
    let counts: Value = serde_json::from_str(counts).unwrap_or_else(|_| json!(counts));
    let of_schema =
        |f: &&Finding| f.severity == Severity::Difference && OF_SCHEMA.contains(&f.code.as_str());
    let differences = ledger.findings.iter().filter(of_schema).count();
    json!({ "compared": counts, "differences": differences })
}
