//! Writes good and tampered bundles into a folder, with the verdict that each must come to, for the suite in which both
//! verifiers have to agree.
//!
//! ```text
//! make_bundles OUT_DIR
//! ```
//!
//! `cases.json` lists them: name, files, and the expected code (`null`: valid).

#[path = "../tests/workshop/mod.rs"]
mod workshop;

use serde_json::json;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: make_bundles OUT_DIR")?;
    let out = Path::new(&out);
    std::fs::create_dir_all(out)?;
    let mut rows = Vec::new();
    for case in workshop::cases::cases() {
        let file = |kind: &str| format!("{}.{kind}", case.name);
        std::fs::write(out.join(file("bundle")), &case.bundle)?;
        std::fs::write(out.join(file("trust")), &case.trust)?;
        if let Some(held) = &case.held {
            std::fs::write(out.join(file("held")), held)?;
        }
        rows.push(json!({
            "name": case.name, "bundle": file("bundle"), "trust": file("trust"),
            "held": case.held.as_ref().map(|_| file("held")), "expect": case.expect,
        }));
    }
    std::fs::write(out.join("cases.json"), serde_json::to_vec_pretty(&rows)?)?;
    Ok(())
}
