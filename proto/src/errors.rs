//! Errors in words, for an operator.

/// The error and its causes, outermost first; a cause that an outer message already tells is not told again.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file")
            .context("cannot read x: no such file")
            .context("--identity");
        assert_eq!(in_words(&error), "--identity: cannot read x: no such file");
    }
}
