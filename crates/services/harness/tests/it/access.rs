//! Who may give what to whom, and who is the last one: bindings, own roles and the guard, through the real path of an act.

use crate::house::House;
use act::Ctx;
use kernel::{Id, TenantId};
use serde_json::{Value, json};

async fn code(house: &House, who: &Ctx, act: &str, args: Value) -> Option<String> {
    house.act(who, act, args).await.err().map(|fault| fault.code)
}

async fn person(house: &House, name: &str, roles: &[&str]) -> Ctx {
    let args = json!({"name": name, "kind": "person", "roles": roles});
    house.act(&house.boss(), "access.principal.create", args).await.unwrap();
    house.person(name).await
}

/// Binds a role past every check of who binds; the binding.
async fn bound(house: &House, who: &Ctx, more: Value) -> String {
    let mut args = json!({"principal": who.principal.id});
    args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = house.act(&house.boss(), "access.binding.create", args).await.unwrap();
    made["binding"].as_str().unwrap().to_owned()
}

/// A house in which nothing waits for people.
async fn house(seed: u64) -> House {
    let house = House::new(seed).await;
    house.policy("package writ\n");
    house
}

fn first_binding(who: &Ctx) -> Value {
    json!({"binding": who.principal.id.as_str().replace("prn_", "bnd_") + ".1"})
}

#[tokio::test]
async fn b14_nobody_gives_or_takes_what_they_do_not_have() {
    let house = house(51).await;
    house.project("desk").await;
    house.project("attic").await;
    let (ann, joe) = (house.person("ann").await, house.person("joe").await);
    let helper = json!({"name": "people", "acts": ["access.binding.*", "access.principal.*", "flows.run.*"]});
    assert_eq!(code(&house, &ann, "access.role.create", helper).await, None);
    bound(&house, &person(&house, "pat", &[]).await, json!({"role": "people"})).await;
    bound(&house, &person(&house, "des", &[]).await, json!({"role": "tenant_admin", "project": "desk"}))
        .await;
    let (pat, des) = (house.person("pat").await, house.person("des").await);
    let anns = first_binding(&ann)["binding"].clone();
    let at = |role: &str, more: Value| {
        let mut args = json!({"principal": joe.principal.id, "role": role});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    let (create, remove) = ("access.binding.create", "access.binding.remove");
    for (what, who, act, args, expected) in [
        ("an administrator, below", &ann, create, at("builder", json!({})), None),
        ("again", &ann, create, at("builder", json!({})), Some("request.state")),
        ("the same", &ann, create, at("tenant_admin", json!({})), None),
        ("what is no role", &ann, create, at("emperor", json!({})), Some("access.role_unknown")),
        ("what is no name of one", &ann, create, at("Emperor!", json!({})), Some("access.role_unknown")),
        ("the platform's", &ann, create, at("platform_admin", json!({})), Some("access.role_scope")),
        ("everywhere", &ann, create, at("auditor", json!({"platform": true})), Some("access.role_scope")),
        ("a service's", &ann, create, at("service", json!({})), Some("access.role_scope")),
        ("until yesterday", &ann, create, at("auditor", json!({"ends_at_ms": 1})), Some("request.invalid")),
        (
            "where nothing is",
            &ann,
            create,
            at("auditor", json!({"project": "cellar"})),
            Some("access.project_unknown"),
        ),
        (
            "both",
            &ann,
            create,
            at("auditor", json!({"project": "desk", "platform": true})),
            Some("request.invalid"),
        ),
        // With a role for people and runs alone.
        ("what one has oneself", &pat, create, at("people", json!({})), None),
        ("what one has oneself, at a project", &pat, create, at("people", json!({"project": "desk"})), None),
        (
            "an operator has more",
            &pat,
            create,
            at("operator", json!({"project": "desk"})),
            Some("access.escalation"),
        ),
        ("a tier", &pat, create, at("approver", json!({})), Some("access.escalation")),
        ("take an administrator's", &pat, remove, json!({"binding": anns}), Some("access.escalation")),
        (
            "suspend one",
            &pat,
            "access.principal.suspend",
            json!({"principal": ann.principal.id}),
            Some("access.escalation"),
        ),
        (
            "make one",
            &pat,
            "access.principal.create",
            json!({"name": "a", "kind": "person", "roles": ["tenant_admin"]}),
            Some("access.escalation"),
        ),
        (
            "make somebody with nothing",
            &pat,
            "access.principal.create",
            json!({"name": "b", "kind": "person"}),
            None,
        ),
        // An administrator of one project.
        ("there", &des, create, at("operator", json!({"project": "desk"})), None),
        ("as much as oneself, there", &des, create, at("tenant_admin", json!({"project": "desk"})), None),
        ("elsewhere", &des, create, at("operator", json!({"project": "attic"})), Some("access.role_missing")),
        ("everywhere in the tenant", &des, create, at("operator", json!({})), Some("access.role_missing")),
        (
            "a principal, which is the tenant's",
            &des,
            "access.principal.create",
            json!({"name": "c", "kind": "person"}),
            Some("access.role_missing"),
        ),
        ("their project", &des, "access.project.archive", json!({"project": "desk"}), None),
        ("another", &des, "access.project.archive", json!({"project": "attic"}), Some("access.role_missing")),
        (
            "into what is archived",
            &des,
            create,
            at("auditor", json!({"project": "desk"})),
            Some("access.project_unknown"),
        ),
    ] {
        assert_eq!(code(&house, who, act, args).await.as_deref(), expected, "{what}");
    }
}

#[tokio::test]
async fn b14_an_own_role_is_no_way_around() {
    let house = house(52).await;
    let ann = house.person("ann").await;
    let role = |name: &str, acts: &[&str]| json!({"name": name, "acts": acts});
    let writer = role("writer", &["access.role.*", "access.binding.create", "flows.run.start"]);
    assert_eq!(code(&house, &ann, "access.role.create", writer).await, None);
    bound(&house, &person(&house, "wes", &[]).await, json!({"role": "writer"})).await;
    let wes = house.person("wes").await;
    let many: Vec<String> = vec!["flows.run.start".into(); 33];
    let (create, set) = ("access.role.create", "access.role.set");
    for (what, who, act, args, expected) in [
        ("a part of one's own", &wes, create, role("less", &["flows.run.start"]), None),
        ("taken already", &wes, create, role("less", &["flows.run.start"]), Some("access.name_taken")),
        ("more than one's own", &wes, create, role("more", &["flows.run.cancel"]), Some("access.escalation")),
        ("by a pattern", &wes, create, role("more", &["flows.run.*"]), Some("access.escalation")),
        (
            "into one that people have",
            &wes,
            set,
            json!({"role": "less", "acts": ["flows.run.cancel"]}),
            Some("access.escalation"),
        ),
        (
            "from one that permits more",
            &wes,
            set,
            json!({"role": "writer", "acts": ["flows.run.start"]}),
            None,
        ),
        ("nothing there is", &ann, create, role("none", &["flows.rum.*"]), Some("access.act_unknown")),
        ("everything", &ann, create, role("all", &["*"]), Some("access.act_unknown")),
        ("the platform's", &ann, create, role("ten", &["access.tenant.create"]), Some("access.escalation")),
        ("a service's", &ann, create, role("svc", &["billing.usage.record"]), Some("access.escalation")),
        ("too many", &ann, create, json!({"name": "many", "acts": many}), Some("request.invalid")),
        ("a name that is none", &ann, create, role("No Name", &["flows.run.start"]), Some("request.invalid")),
        (
            "where nothing is",
            &ann,
            set,
            json!({"role": "nobody", "acts": ["flows.run.start"]}),
            Some("not_found"),
        ),
    ] {
        assert_eq!(code(&house, who, act, args).await.as_deref(), expected, "{what}");
    }
    // The platform's own people write no platform act into a tenant's role either.
    let mut chief = house.as_if("prn_chief", act::PrincipalKind::Person, &["platform_admin"]);
    chief.principal.home = TenantId::platform();
    chief.principal.rights.platform = vec!["platform_admin".into()];
    let ten = role("ten", &["access.tenant.create"]);
    assert_eq!(code(&house, &chief, create, ten).await.as_deref(), Some("access.escalation"));
    // Wes has set his own role to one act, and that is all he has now.
    let wes = house.person("wes").await;
    assert_eq!(
        code(&house, &wes, create, role("again", &["flows.run.start"])).await.as_deref(),
        Some("access.role_missing")
    );
    let shown = house.read(&ann, "role_show", &[("role", "writer")]).await.unwrap();
    assert_eq!((&shown["version"], &shown["acts"]), (&json!(2), &json!(["flows.run.start"])));
    assert_eq!(code(&house, &ann, "access.role.retire", json!({"role": "writer"})).await, None);
    assert!(house.person("wes").await.principal.roles.is_empty(), "what is retired permits nothing");
}

#[tokio::test]
async fn b14_the_last_administrator_stays() {
    let house = house(53).await;
    let (ann, bob, joe) = (house.person("ann").await, house.person("bob").await, house.person("joe").await);
    // The owner that came with the tenant is the third.
    let owner = house.person("owner").await;
    let (remove, suspend) = ("access.binding.remove", "access.principal.suspend");
    let of = |who: &Ctx| json!({"principal": who.principal.id});
    let soon = json!({"principal": joe.principal.id, "role": "tenant_admin", "ends_at_ms": house.clock_ms() + 1_000});
    for (what, act, args, expected) in [
        ("one of three", suspend, of(&owner), None),
        ("one of two", remove, first_binding(&bob), None),
        ("an administrator for a while is none for good", "access.binding.create", soon, None),
        ("the last, by suspending", suspend, of(&ann), Some("access.last_admin")),
        ("the last, by unbinding", remove, first_binding(&ann), Some("access.last_admin")),
        // Who is suspended counts again once they are let in.
        ("a second", "access.principal.resume", of(&owner), None),
        ("not the last any more", remove, first_binding(&ann), None),
        ("the last again", suspend, of(&owner), Some("access.last_admin")),
    ] {
        assert_eq!(code(&house, &house.boss(), act, args).await.as_deref(), expected, "{what}");
    }
}

#[tokio::test]
async fn b14_of_two_who_remove_each_other_exactly_one_wins() {
    for (seed, by) in [(54, "binding"), (55, "suspending")] {
        let house = house(seed).await;
        let owner = house.person("owner").await;
        assert_eq!(
            code(&house, &house.boss(), "access.principal.suspend", json!({"principal": owner.principal.id}))
                .await,
            None
        );
        let (ann, bob) = (house.person("ann").await, house.person("bob").await);
        let removal = |whom: &Ctx| match by {
            "binding" => ("access.binding.remove", first_binding(whom)),
            _ => ("access.principal.suspend", json!({"principal": whom.principal.id})),
        };
        let ((one, args), (other, other_args)) = (removal(&bob), removal(&ann));
        let (anns, bobs) = tokio::join!(code(&house, &ann, one, args), code(&house, &bob, other, other_args));
        let won = [&anns, &bobs].iter().filter(|code| code.is_none()).count();
        assert_eq!(won, 1, "{by}: {anns:?} {bobs:?}");
        let lost = anns.or(bobs).unwrap();
        assert!(["access.escalation", "access.last_admin"].contains(&lost.as_str()), "{by}: {lost}");
    }
}

#[tokio::test]
async fn with_three_who_has_been_removed_removes_nobody() {
    let house = house(56).await;
    let (ann, bob) = (house.person("ann").await, house.person("bob").await);
    assert_eq!(code(&house, &ann, "access.binding.remove", first_binding(&bob)).await, None);
    // Bob was let in before that, and is still under way; the owner and Ann would both be left.
    let late = code(&house, &bob, "access.binding.remove", first_binding(&ann)).await;
    assert_eq!(late.as_deref(), Some("access.escalation"));
}

#[tokio::test]
async fn an_administrator_of_the_platforms_tenant_takes_nothing_from_the_platform() {
    let house = house(57).await;
    let admin = house.of_platform("admin").await;
    for (name, role) in [("local", "tenant_admin"), ("second", "platform_admin")] {
        let args = json!({"name": name, "kind": "person", "roles": [role]});
        assert_eq!(code(&house, &admin, "access.principal.create", args).await, None);
    }
    let (local, second) = (house.of_platform("local").await, house.of_platform("second").await);
    let more = json!({"principal": local.principal.id, "role": "platform_admin", "platform": true});
    let audit = json!({"principal": local.principal.id, "role": "auditor", "platform": true});
    for (what, who, act, args, expected) in [
        ("take it", &local, "access.binding.remove", first_binding(&second), Some("access.escalation")),
        (
            "suspend",
            &local,
            "access.principal.suspend",
            json!({"principal": second.principal.id}),
            Some("access.escalation"),
        ),
        ("give it to oneself", &local, "access.binding.create", more, Some("access.escalation")),
        ("read everything", &local, "access.binding.create", audit.clone(), Some("access.escalation")),
        ("the platform gives it", &admin, "access.binding.create", audit, None),
        ("and takes it", &admin, "access.binding.remove", first_binding(&second), None),
    ] {
        assert_eq!(code(&house, who, act, args).await.as_deref(), expected, "{what}");
    }
}

#[tokio::test]
async fn what_ends_or_is_suspended_gives_nothing() {
    let house = house(58).await;
    house.project("desk").await;
    let zoe = person(&house, "zoe", &[]).await;
    let end_ms = house.clock_ms() + 1_000;
    bound(&house, &zoe, json!({"role": "operator", "ends_at_ms": end_ms})).await;
    bound(&house, &zoe, json!({"role": "builder", "project": "desk", "ends_at_ms": end_ms + 1_000})).await;
    let known = house.person("zoe").await.principal;
    let desk = Id::parse("prj_desk").unwrap();
    assert_eq!(
        (known.roles, known.rights.projects),
        (vec!["operator".into()], vec![(desk.clone(), "builder".into())])
    );
    house.clock.advance_ms(1_000);
    let known = house.person("zoe").await.principal;
    assert_eq!((known.roles, known.rights.projects.len()), (vec![], 1), "at its end it is over");
    assert_eq!(
        code(&house, &house.boss(), "access.principal.suspend", json!({"principal": zoe.principal.id})).await,
        None
    );
    let known = house.person("zoe").await.principal;
    assert_eq!((known.roles, known.rights.projects.len()), (vec![], 0));
    house.clock.advance_ms(1_000);
    // What has ended makes room: the same again is no conflict.
    bound(&house, &zoe, json!({"role": "operator"})).await;
}

#[tokio::test]
async fn a_project_has_approvers_of_its_own() {
    let house = house(59).await;
    house.project("desk").await;
    house.project("attic").await;
    for (name, project) in [("dan", "desk"), ("alf", "attic")] {
        let who = person(&house, name, &[]).await;
        bound(&house, &who, json!({"role": "approver", "project": project})).await;
    }
    house.policy("package writ\n\nrequired := {\"reason\": \"approval.test\", \"tier\": 1, \"approvals\": 1} if input.action == \"access.project.archive\"\n");
    let ann = house.person("ann").await;
    let waits = house.act(&ann, "access.project.archive", json!({"project": "desk"})).await.unwrap();
    let id = Id::parse(waits["waits"].as_str().unwrap()).unwrap();
    let (alf, dan) = (house.person("alf").await, house.person("dan").await);
    assert_eq!(house.grant(&alf, &id).await.unwrap_err().code, "access.role_missing");
    house.grant(&dan, &id).await.unwrap();
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
}

#[tokio::test]
async fn workspaces_and_projects() {
    let house = house(60).await;
    let ann = house.person("ann").await;
    let (workspace, project) = ("access.workspace.create", "access.project.create");
    let live = |name: &str| json!({"name": name, "environment": "production"});
    for (what, act, args, expected) in [
        ("a workspace", workspace, live("live"), None),
        ("the same again", workspace, live("live"), Some("access.name_taken")),
        ("of no class", workspace, json!({"name": "x", "environment": "holiday"}), Some("request.invalid")),
        ("of no name", workspace, live("Not A Name"), Some("request.invalid")),
        ("a project", project, json!({"name": "desk", "workspace": "live"}), None),
        ("in no workspace", project, json!({"name": "a", "workspace": "attic"}), Some("not_found")),
        (
            "the same name elsewhere",
            project,
            json!({"name": "desk", "workspace": "wks_live"}),
            Some("access.name_taken"),
        ),
        (
            "not while it has projects",
            "access.workspace.archive",
            json!({"workspace": "live"}),
            Some("request.state"),
        ),
        ("the project", "access.project.archive", json!({"project": "desk"}), None),
        ("twice", "access.project.archive", json!({"project": "desk"}), Some("request.state")),
        ("now", "access.workspace.archive", json!({"workspace": "live"}), None),
        (
            "into what is archived",
            project,
            json!({"name": "late", "workspace": "live"}),
            Some("request.state"),
        ),
    ] {
        assert_eq!(code(&house, &ann, act, args).await.as_deref(), expected, "{what}");
    }
    // Another tenant's project is not there.
    let admin = house.of_platform("admin").await;
    house.project("shed").await;
    assert_eq!(
        code(&house, &admin, "access.project.archive", json!({"project": "shed"})).await.as_deref(),
        Some("not_found")
    );
    let list = house.read(&ann, "project_list", &[]).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let none = house.read_in(&TenantId::platform(), &admin, "project_list", &[]).await.unwrap();
    assert_eq!(none["items"], json!([]));
}
