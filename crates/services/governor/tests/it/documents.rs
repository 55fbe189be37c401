//! Every code has a page, and the page is about it.

use crate::support::root;
use governor::policy::CODES;
use std::collections::BTreeSet;

#[test]
fn every_code_has_a_page() {
    let mut codes = BTreeSet::new();
    for (code, meaning) in CODES {
        assert!(codes.insert(*code), "{code} stands in the table twice");
        assert!(!meaning.is_empty() && !meaning.ends_with('.'), "{code}");
        let path = root().join(format!("docs/errors/{code}.md"));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(page.starts_with(&format!("# {code}\n")), "{code}");
        assert!(page.contains("**What to do.**"), "{code}");
        assert!((5..=14).contains(&page.lines().count()), "{code}: {} lines", page.lines().count());
    }
}
