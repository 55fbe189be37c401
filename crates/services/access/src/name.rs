//! Names that become ids: of workspaces, projects and a tenant's own roles.
//!
//! They stand on bills, in policies and in commands, so they are words and not numbers, like those of workflows and
//! tenants: `prj_service-desk`. A name is taken for good. What is archived keeps it, because facts and bills name it.

use act::Fault;
use kernel::Id;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 40;

/// The id of the thing of this kind with this name: lower-case letters, digits and dashes, a letter first. The id itself
/// is taken for its name.
pub(crate) fn id(prefix: &str, text: &str) -> Option<Id> {
    let name = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ok = name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(plain);
    if ok { Id::parse(&format!("{prefix}_{name}")).ok() } else { None }
}

/// The same for a name that is to be given.
pub(crate) fn new(prefix: &str, text: &str) -> Result<Id, Fault> {
    id(prefix, text).ok_or_else(|| {
        let message = format!(
            "a name has lower-case letters, digits and dashes, a letter first, and at most {NAME_BYTES_MAX} bytes"
        );
        Fault::invalid("request.invalid", message)
    })
}

/// The name in an id.
pub(crate) fn of(id: &Id) -> &str {
    id.as_str().split_once('_').map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        for (text, id) in [
            ("desk", Some("prj_desk")),
            ("prj_desk", Some("prj_desk")),
            ("service-desk-2", Some("prj_service-desk-2")),
            ("wks_desk", None),
            ("Desk", None),
            ("2desk", None),
            ("-desk", None),
            ("desk-", None),
            ("desk.a", None),
            ("", None),
            ("prj_", None),
            ("a desk", None),
            ("désk", None),
        ] {
            assert_eq!(super::id("prj", text).as_ref().map(|id| id.as_str()), id, "{text}");
        }
        assert!(super::id("prj", &"a".repeat(super::NAME_BYTES_MAX)).is_some());
        assert!(super::id("prj", &"a".repeat(super::NAME_BYTES_MAX + 1)).is_none());
    }
}
