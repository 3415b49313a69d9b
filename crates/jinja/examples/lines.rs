//! Renders templates from standard input, one JSON object per line: `{"template": …, "variables": {…}}`. Prints one line for
//! each: `{"text": …}`, or `{"error": …, "kind": …}`.

use std::io::{BufRead, Write};

use phi3_jinja::Template;
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let variables: Vec<(&str, &Value)> =
            case["variables"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
        let clock = |format: &str| format!("now({format})");
        let result = Template::new(case["template"].as_str().unwrap_or_default())
            .and_then(|template| template.render(&variables, clock));
        let shown = match result {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"error": error.to_string(), "kind": format!("{:?}", error.kind())}),
        };
        writeln!(out, "{shown}")?;
    }
    Ok(())
}
