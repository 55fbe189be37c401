//! From an approval to Block Kit, with texts of strangers on it.
//!
//! A ticket that says `<!channel> <https://evil.example|Approve here>` must come out as those characters. In mrkdwn `&`,
//! `<` and `>` are the whole of the escape (api.slack.com, "Formatting text for app surfaces"), and `verbatim` stops Slack
//! from finding links, channels and people in plain words. Line breaks, control characters and the ones that turn the
//! direction of a line are taken out, so that nobody can paint a second card inside the first. What is long is cut, and
//! says so.

use super::card::{Card, ended};
use super::connection::Connection;
use governor::approval::{Approval, Status};
use kernel::Id;
use serde_json::{Value, json};

/// The buttons.
pub const GRANT: &str = "approval_grant";
/// The other one.
pub const DENY: &str = "approval_deny";
/// Most lines of a preview that are shown.
pub const LINES_MAX: usize = 20;
/// Most characters of a line's text.
pub const LINE_CHARS_MAX: usize = 300;
const LABEL_CHARS_MAX: usize = 60;

/// Makes a stranger's text harmless: one line, cut, escaped.
pub fn escaped(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max) + 8);
    for (n, c) in text.chars().enumerate() {
        if n == chars_max {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                out.push('·')
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => out.push('·'),
            c => out.push(c),
        }
    }
    out
}

fn mrkdwn(text: String) -> Value {
    json!({"type": "mrkdwn", "text": text, "verbatim": true})
}

fn section(text: String) -> Value {
    json!({"type": "section", "text": mrkdwn(text)})
}

/// The address of an approval, if the connection says where this installation is reached.
pub fn link(connection: &Connection, approval: &Id) -> Option<String> {
    connection.link_base.as_ref().map(|base| format!("{base}/v1/approvals/{approval}"))
}

/// The message of a card: everything of `chat.postMessage` and `chat.update` but channel and ts.
pub fn message(connection: &Connection, card: &Card, approval: &Approval) -> Value {
    let act = escaped(&approval.act, LINE_CHARS_MAX);
    let (title, decided) = headline(approval);
    let mut blocks = vec![section(format!("*{title}*\n{act}"))];
    let people = match approval.needed {
        0 | 1 => "one person".to_owned(),
        needed => format!("{needed} different people ({} so far)", approval.grants.len()),
    };
    let risk = format!("{people} of tier {} or above", approval.tier);
    let mut who = approval.requester.principal.id.to_string();
    for person in &approval.requester.on_behalf_of {
        who.push_str(&format!(", for {person}"));
    }
    blocks.push(json!({"type": "section", "fields": [
        mrkdwn(format!("*Asked for by*\n{}", escaped(&who, LINE_CHARS_MAX))),
        mrkdwn(format!("*Needs*\n{risk}")),
        mrkdwn(format!("*Why*\n{}", escaped(&approval.reasons.join(", "), LINE_CHARS_MAX))),
    ]}));
    for (label, text) in approval.preview.iter().take(LINES_MAX) {
        blocks.push(section(format!(
            "*{}*\n{}",
            escaped(label, LABEL_CHARS_MAX),
            escaped(text, LINE_CHARS_MAX)
        )));
    }
    let more = approval.preview.len().saturating_sub(LINES_MAX);
    if more > 0 {
        blocks.push(section(format!("_{more} more lines are not shown here_")));
    }
    if decided.is_none() {
        let button = |action: &str, text: &str, style: &str, ask: &str| {
            let plain = |text: &str| json!({"type": "plain_text", "text": text});
            json!({
                "type": "button", "action_id": action, "text": plain(text), "style": style, "value": card.id,
                "confirm": {"title": plain(text), "text": plain(ask), "confirm": plain(text), "deny": plain("Not now")},
            })
        };
        blocks.push(json!({"type": "actions", "block_id": "decide", "elements": [
            button(GRANT, "Grant", "primary", "It will be carried out exactly as shown."),
            button(DENY, "Decline", "danger", "It will not be carried out."),
        ]}));
    }
    if let Some(decided) = &decided {
        blocks.push(section(decided.clone()));
    }
    let digest = approval.preview_digest.get(..12).unwrap_or_default();
    let mut foot = format!("`{}` · shown as {digest}… · `writ approval show {}`", approval.id, approval.id);
    if let Some(link) = link(connection, &approval.id) {
        foot.push_str(&format!(" · <{link}|open>"));
    }
    blocks.push(json!({"type": "context", "elements": [mrkdwn(foot)]}));
    json!({
        // What stands in notifications; no markup, no lookups.
        "text": format!("{title}: {act}"),
        "mrkdwn": false, "parse": "none", "link_names": false, "unfurl_links": false, "unfurl_media": false,
        "blocks": blocks,
    })
}

/// The title, and what is said below once it is decided.
fn headline(approval: &Approval) -> (&'static str, Option<String>) {
    let by = || {
        let people = approval.grants.iter().map(|grant| match &grant.delegator {
            None => grant.approver.to_string(),
            Some(absent) => format!("{} for {absent}", grant.approver),
        });
        people.collect::<Vec<_>>().join(", ")
    };
    match approval.status {
        Status::Pending if approval.reminded_at_ms.is_some() => ("Still waiting for approval", None),
        Status::Pending => ("Approval wanted", None),
        Status::Granted => ("Granted, being carried out", Some(format!("Granted by {}.", by()))),
        Status::Used => ("Granted and carried out", Some(format!("Granted by {}.", by()))),
        Status::Denied => {
            let who = approval.closed.as_ref().and_then(|closed| closed.by.as_ref());
            ("Declined", Some(format!("Declined by {}.", who.map_or("somebody", Id::as_str))))
        }
        Status::Expired => {
            ("Expired", Some("Nobody decided in time. That is not a no: it can be asked for again.".into()))
        }
        Status::Void => {
            let why = approval.closed.as_ref().map_or("", |closed| closed.reason.as_str());
            ("Void", Some(format!("Granted, and not carried out: {}.", escaped(why, LABEL_CHARS_MAX))))
        }
    }
}

/// Whether a message with buttons should be there.
pub fn waits(approval: &Approval) -> bool {
    !ended(approval) && approval.status == Status::Pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slack::card::{State, channels, face};
    use crate::slack::connection::{BASE_URL, connection_id};
    use act::{Assurance, Ctx, Principal, PrincipalKind};
    use custody::CredentialRef;
    use governor::approval::{Closed, GrantedBy};
    use kernel::TenantId;
    use std::collections::BTreeMap;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    fn connection() -> Connection {
        let secret = CredentialRef::parse("secret:a").unwrap();
        Connection {
            id: connection_id(),
            team: "T1".into(),
            app: "A1".into(),
            bot_token: secret.clone(),
            signing_secret: secret,
            base_url: BASE_URL.into(),
            channels: BTreeMap::from([(1, "C1".to_owned()), (2, "C2".to_owned())]),
            link_base: Some("https://writ.example".into()),
            hook: id("slh_a"),
            connected_at_ms: 0,
            disconnected_at_ms: None,
        }
    }

    fn card() -> Card {
        Card {
            id: id("crd_a"),
            approval: id("apr_a"),
            channel: "C1".into(),
            ts: None,
            preview_digest: "d".into(),
            state: State::Due,
            face: String::new(),
            attempts: 0,
            error: None,
            queued_at_ms: 0,
        }
    }

    fn approval(preview: &[(&str, &str)]) -> Approval {
        let tenant = TenantId::parse("ten_acme").unwrap();
        Approval {
            id: id("apr_a"),
            status: Status::Pending,
            act: "flows.tool.call".into(),
            args: json!({"secret_of_the_ticket": "canary-4711"}),
            args_digest: "0".repeat(64),
            target: ("flows.run".into(), id("run_a")),
            preview: preview.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect(),
            preview_digest: "abcdef0123456789".into(),
            project: None,
            requester: Ctx {
                tenant: tenant.clone(),
                principal: Principal {
                    id: id("prn_svc-engine"),
                    kind: PrincipalKind::Service,
                    roles: vec![],
                    home: tenant,
                    rights: Default::default(),
                },
                on_behalf_of: vec![id("prn_ann")],
                assurance: Assurance { method: "internal".into(), level: 1, at_ms: 0, until_ms: None },
                trace: String::new(),
                idempotency_key: None,
                requested_at_ms: 0,
            },
            tier: 1,
            needed: 2,
            grants: Vec::new(),
            reasons: vec!["approval.write_effect".into()],
            requested_at_ms: 0,
            expires_at_ms: 1000,
            asked_tier: 1,
            remind_at_ms: None,
            reminded_at_ms: None,
            escalate_at_ms: None,
            timer: id("job_a"),
            closed: None,
            requested_fact: id("fct_a"),
        }
    }

    #[test]
    fn d10_hostile_text_comes_out_as_its_characters() {
        for (text, expected) in [
            ("plain *bold* text", "plain *bold* text"),
            ("<!channel> hello", "&lt;!channel&gt; hello"),
            ("<@U123>", "&lt;@U123&gt;"),
            ("<https://evil.example|Grant here>", "&lt;https://evil.example|Grant here&gt;"),
            ("&lt;!here&gt;", "&amp;lt;!here&amp;gt;"),
            ("a\nb\r\nc\td", "a·b··c·d"),
            ("a\u{202e}b\u{200b}c\u{2028}d", "a·b·c·d"),
            ("\u{0}\u{1b}[2J", "··[2J"),
            ("0123456789abcdef", "0123456789…"),
            ("&&&&&&&&&&&", "&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;…"),
            ("", ""),
        ] {
            let max = if text.starts_with("0123") || text.starts_with("&&") { 10 } else { 1000 };
            assert_eq!(escaped(text, max), expected, "{text:?}");
        }
    }

    #[test]
    fn a_card_shows_the_preview_and_only_that() {
        let shown = approval(&[("Group", "<!channel> & \u{202e}Hardware"), ("<b>", "x")]);
        let message = message(&connection(), &card(), &shown);
        let text = message.to_string();
        for expected in [
            "&lt;!channel&gt; &amp; ·Hardware",
            "&lt;b&gt;",
            "prn_svc-engine, for prn_ann",
            "2 different people (0 so far)",
            "abcdef012345…",
            "<https://writ.example/v1/approvals/apr_a|open>",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("canary-4711") && !text.contains("<!channel>"), "{text}");
        for (name, value) in [
            ("parse", json!("none")),
            ("link_names", json!(false)),
            ("unfurl_links", json!(false)),
            ("mrkdwn", json!(false)),
        ] {
            assert_eq!(message[name], value, "{name}");
        }
        let blocks = message["blocks"].as_array().unwrap();
        let buttons =
            blocks.iter().find(|block| block["type"] == "actions").unwrap()["elements"].as_array().unwrap();
        assert_eq!(
            buttons.iter().map(|button| button["value"].clone()).collect::<Vec<_>>(),
            [json!("crd_a"), json!("crd_a")]
        );
        for block in blocks {
            let texts = block["fields"].as_array().cloned().unwrap_or_else(|| vec![block["text"].clone()]);
            for text in texts.iter().filter(|text| text["type"] == "mrkdwn") {
                assert_eq!(text["verbatim"], true, "{block}");
                assert!(text["text"].as_str().unwrap().chars().count() <= 3000);
            }
        }
    }

    #[test]
    fn a_card_stays_within_slacks_limits() {
        let long = "<".repeat(5000);
        let lines: Vec<(&str, &str)> = (0..60).map(|_| (long.as_str(), long.as_str())).collect();
        let message = message(&connection(), &card(), &approval(&lines));
        let blocks = message["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        assert!(blocks.iter().all(|block| block["text"]["text"].as_str().unwrap_or_default().len() <= 3000));
        assert!(message.to_string().contains("40 more lines are not shown here"));
    }

    #[test]
    fn each_end_has_its_words_and_no_buttons() {
        let mut titles = std::collections::BTreeSet::new();
        let mut faces = std::collections::BTreeSet::new();
        for status in
            [Status::Pending, Status::Granted, Status::Used, Status::Denied, Status::Expired, Status::Void]
        {
            let mut shown = Approval { status, ..approval(&[]) };
            if status != Status::Pending {
                shown.grants.push(GrantedBy {
                    approver: id("prn_eve"),
                    tier: 1,
                    at_ms: 1,
                    delegator: Some(id("prn_bob")),
                    delegation: None,
                });
                shown.closed =
                    Some(Closed { at_ms: 1, by: Some(id("prn_fay")), reason: "approval.changed".into() });
            }
            let message = message(&connection(), &card(), &shown);
            titles.insert(message["text"].as_str().unwrap().to_owned());
            faces.insert(face(&shown));
            assert_eq!(message.to_string().contains("\"actions\""), status == Status::Pending, "{status:?}");
        }
        assert_eq!((titles.len(), faces.len()), (6, 6));
    }

    #[test]
    fn it_is_shown_to_every_tier_that_was_asked() {
        let connection = connection();
        let shown = |tier, asked_tier| {
            let approval = Approval { tier, asked_tier, ..approval(&[]) };
            channels(&connection, &approval).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            [shown(1, 1), shown(1, 2), shown(2, 2), shown(0, 0), shown(0, 1)],
            ["C1", "C1 C2", "C2", "C1", "C1"]
        );
    }
}
