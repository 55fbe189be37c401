//! Backups of a server that works, and a server that finds out that it was put back.

use crate::support::{Ask, World};
use act::{Method, SystemIds};
use evidence::trust::Trust;
use evidence::verify::verify;
use evidence::{SealError, Sealed};
use kernel::TenantId;
use serde_json::{Value, json};
use server::backup::{self, BackupError, RECOVERY_FILE};
use std::fs;
use std::path::{Path, PathBuf};

/// Copies a folder as somebody with `cp -r` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn data(world: &World) -> PathBuf {
    world.folder.path().join("data")
}

fn work(world: &World) -> Ask {
    let name = world.unused("someone");
    world
        .admin(Method::Post, "/v1/principals")
        .json(&json!({"name": name, "kind": "person", "roles": ["builder"]}))
}

fn epoch_open(world: &World) -> Ask {
    let body = json!({"reason": "yesterday's folder was put back; three facts of noon are lost"});
    world.ask(Method::Post, "/v1/epochs").key(&world.admin).json(&body)
}

async fn sealed(world: &World, tenant: &TenantId) -> String {
    let house = world.house();
    house.evidence.seal(&house.store, tenant).await.unwrap().newest().expect("a checkpoint").note
}

async fn exported(world: &World) -> Vec<u8> {
    let made = world.admin(Method::Post, "/v1/evidence").json(&json!({"all": true})).send().await.ok();
    fs::read(data(world).join(format!("evidence/{}.evidence.tar", made["digest"].as_str().unwrap()))).unwrap()
}

async fn trust(world: &World) -> Trust {
    let shown = world.admin(Method::Get, "/v1/trust").send().await.ok();
    Trust::parse(shown["trust"].to_string().as_bytes()).unwrap()
}

/// Nothing is done, sent or signed, and everything can be read.
async fn does_nothing(world: &World, tenant: &TenantId) {
    let size = world.size(tenant).await;
    work(world).send().await.refused(503, "evidence.put_back");
    world.ask(Method::Get, "/readyz").send().await.refused(503, "edge.not_ready");
    world
        .admin(Method::Post, "/v1/evidence")
        .json(&json!({"all": true}))
        .send()
        .await
        .refused(503, "evidence.put_back");
    world
        .ask(Method::Post, "/v1/hooks/whk_nobody")
        .json(&json!({}))
        .send()
        .await
        .refused(503, "evidence.put_back");
    world.admin(Method::Get, "/v1/principals").send().await.ok();
    world.ask(Method::Get, "/healthz").send().await.ok();
    let house = world.house();
    for tenant in [tenant, &TenantId::platform()] {
        let signed = house.evidence.seal(&house.store, tenant).await;
        assert!(matches!(signed, Err(SealError::PutBack { .. })), "{signed:?}");
    }
    assert_eq!(world.size(tenant).await, size, "a refusal leaves nothing in a log that nobody may continue");
}

/// An epoch is opened by whoever may, with a reason, and then everything goes on in every log.
async fn goes_on(world: &World, tenant: &TenantId) -> u64 {
    let unreasoned = world.ask(Method::Post, "/v1/epochs").key(&world.admin).json(&json!({"reason": ""}));
    unreasoned.send().await.refused(422, "request.invalid");
    let size = world.size(tenant).await;
    let opened = epoch_open(world).send().await.ok();
    let epoch = opened["epoch"].as_u64().unwrap();
    assert!(epoch > 20_000_101_000_000, "named by its second: {epoch}");
    // The first fact under the new origin says what it took over.
    let leaf: Value = world.leaves(tenant, size).await.remove(0);
    assert_eq!(leaf["kind"], "evidence.epoch.opened");
    assert_eq!(leaf["origin"].as_str().unwrap().rsplit('/').next().unwrap(), epoch.to_string());
    assert_eq!(leaf["outcome"]["size"], size);
    work(world).send().await.ok();
    world.ask(Method::Get, "/readyz").send().await.ok();
    for tenant in [tenant, &TenantId::platform()] {
        assert!(sealed(world, tenant).await.starts_with(&format!("writ.local/local/{tenant}/{epoch}\n")));
    }
    epoch
}

/// Yesterday's folder, copied over today's by hand, with everything that is in it.
#[tokio::test]
async fn g04_yesterdays_folder_is_not_signed_until_an_epoch_is_opened() {
    let world = World::start().await;
    let tenant = world.tenant();
    let other = world.second_tenant().await;
    work(&world).send().await.ok();
    let shared = sealed(&world, &tenant).await;
    let yesterday = world.folder.path().join("yesterday");
    let folder = data(&world);
    // Stopped, so that the copy is whole.
    let World { running, admin, folder: place, .. } = world;
    let config = (*running.house.config).clone();
    running.shutdown().await;
    copy(&folder, &yesterday);
    let start = async |place, admin| World::again(config.clone(), place, admin).await;

    let world = start(place, admin).await;
    for _ in 0..3 {
        work(&world).send().await.ok();
    }
    let held = sealed(&world, &tenant).await;
    let (bundle, before) = (exported(&world).await, trust(&world).await);
    assert!(verify(&bundle, &before, Some(&shared)).ok());
    let World { running, admin, folder: place, .. } = world;
    running.shutdown().await;

    fs::remove_dir_all(&folder).unwrap();
    copy(&yesterday, &folder);
    let world = start(place, admin).await;
    does_nothing(&world, &tenant).await;
    // Starting it again is no way around it.
    let World { running, admin, folder: place, .. } = world;
    running.shutdown().await;
    let world = start(place, admin).await;
    does_nothing(&world, &tenant).await;
    let stranger = world.ask(Method::Post, "/v1/epochs").json(&json!({"reason": "because"}));
    stranger.send().await.refused(401, "edge.credentials_missing");
    world
        .admin(Method::Post, "/v1/epochs")
        .json(&json!({"reason": "of one tenant"}))
        .send()
        .await
        .refused(404, "not_found");
    let epoch = goes_on(&world, &tenant).await;
    // The other tenant's log went along, and one that is born now is born in this epoch.
    assert!(world.house().store.tenants_behind().await.unwrap().is_empty());
    assert!(sealed(&world, &other).await.starts_with(&format!("writ.local/local/{other}/{epoch}\n")));

    // Whoever holds a head from noon learns that it is of another epoch, and is not told that somebody lied.
    let (bundle_now, after) = (exported(&world).await, trust(&world).await);
    let code = |bundle: &[u8], trust: &Trust, held: Option<&str>| {
        verify(bundle, trust, held).failure.map(|failure| failure.reason.code())
    };
    assert_eq!(code(&bundle_now, &after, None), None);
    assert_eq!(
        code(&bundle_now, &after, Some(&shared)),
        None,
        "what was signed before it was lost is in both"
    );
    assert_eq!(code(&bundle_now, &after, Some(&held)), Some("evidence.held_epoch"));
    assert_eq!(
        code(&bundle_now, &before, None),
        Some("evidence.log_unknown"),
        "nobody is made to trust it unasked"
    );
    assert_eq!(code(&bundle, &after, Some(&held)), None, "what was given out at noon stays true");
    let listed = world.ask(Method::Get, "/v1/epochs").key(&world.admin).send().await.ok();
    assert_eq!(listed["items"][0]["epoch"], epoch);
    assert!(listed["items"][0]["reason"].as_str().unwrap().contains("yesterday"));

    // From now on it is like any other: it starts again without being asked for anything.
    let World { running, admin, folder: place, .. } = world;
    running.shutdown().await;
    let world = start(place, admin).await;
    work(&world).send().await.ok();
    assert_ne!(sealed(&world, &tenant).await, held);
}

/// A mark that is gone, or another installation's, is as good as one that is ahead.
#[tokio::test]
async fn g04_a_folder_without_its_mark_is_not_signed() {
    for mark in [None, Some("{\"version\":1,\"key\":\"ab\",\"epoch\":1,\"generation\":0}"), Some("")] {
        let world = World::start().await;
        let tenant = world.tenant();
        sealed(&world, &tenant).await;
        let World { running, admin, folder, .. } = world;
        let config = (*running.house.config).clone();
        running.shutdown().await;
        let path = config.high_water();
        assert_eq!(path, folder.path().canonicalize().unwrap().join("data.high-water"));
        match mark {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        let world = World::again(config, folder, admin).await;
        does_nothing(&world, &tenant).await;
        goes_on(&world, &tenant).await;
    }
}

/// Made while writes go on, put back elsewhere, and the log of the copy is whole.
#[tokio::test]
async fn a_backup_is_made_beside_writes_and_put_back_elsewhere() {
    let world = World::start().await;
    let tenant = world.tenant();
    work(&world).send().await.ok();
    exported(&world).await;
    let secret = json!({"name": "desk.password", "purpose": "connector", "value": "canary-canary-canary"});
    world.admin(Method::Post, "/v1/secrets").json(&secret).send().await.ok();
    let create = world.ask(Method::Post, "/v1/backups").key(&world.admin).json(&json!({}));
    let writes = async {
        for _ in 0..40 {
            work(&world).send().await.ok();
        }
    };
    let (made, ()) = tokio::join!(create.send(), writes);
    let made = made.ok();
    let folder = PathBuf::from(made["folder"].as_str().unwrap());
    assert!(folder.starts_with(data(&world).join("backups")));
    let facts = world.leaves(&TenantId::platform(), 0).await;
    let fact = facts.iter().find(|fact| fact["kind"] == "edge.backup.created").expect("it is recorded");
    assert_eq!(fact["outcome"]["digest"], made["digest"]);
    world.admin(Method::Post, "/v1/backups").json(&json!({})).send().await.refused(404, "not_found");

    let verified = backup::verify_of(&folder, &data(&world)).unwrap();
    assert_eq!(verified.digest, made["digest"].as_str().unwrap());
    // No key and no secret stands in it in clear, and neither does the administrator's key.
    let bytes: Vec<u8> = ["writ.db", "keys.sealed", "manifest.json"]
        .iter()
        .flat_map(|name| fs::read(folder.join(name)).unwrap())
        .collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds("canary-canary-canary"));
    assert!(!holds(world.admin.split('.').nth(1).unwrap()));
    for key in ["log.key", "evidence.key", "policy.key", "seal.key"] {
        let line = fs::read_to_string(data(&world).join("keys").join(key)).unwrap();
        assert!(!holds(line.split(' ').nth(1).unwrap().trim()), "{key}");
    }

    let place = world.folder.path();
    let key = data(&world).join(RECOVERY_FILE);
    let full = place.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("something"), "of somebody").unwrap();
    assert!(matches!(backup::restore(&folder, &key, &full), Err(BackupError::Taken(_))));
    assert_eq!(fs::read_to_string(full.join("something")).unwrap(), "of somebody");
    let elsewhere = testkit::folder::fresh();
    let to = elsewhere.path().join("data");
    backup::restore(&folder, &key, &to).unwrap();
    let mut config = (*world.house().config).clone();
    config.folder = to.clone();
    let admin = world.admin.clone();
    let restored = World::again(config, elsewhere, admin).await;
    does_nothing(&restored, &tenant).await;
    let size = verified.manifest.logs.iter().find(|log| log.origin.contains(tenant.as_str())).unwrap().size;
    assert_eq!(restored.size(&tenant).await, size);
    goes_on(&restored, &tenant).await;
    assert!(verify(&exported(&restored).await, &trust(&restored).await, None).ok());
    // The one it was made of is as it was.
    work(&world).send().await.ok();
    assert!(matches!(
        world.house().evidence.seal(&world.house().store, &tenant).await,
        Ok(Sealed::New(_) | Sealed::Unchanged(_))
    ));
}

/// Whatever is changed in a backup, it is not believed, and nothing is put back.
#[tokio::test]
async fn a_backup_that_was_touched_is_refused() {
    let world = World::start().await;
    exported(&world).await;
    let place = world.folder.path();
    let made = backup::create_of(&data(&world), &place.join("backup"), &SystemIds, 5).unwrap();
    assert_eq!(made.manifest.created_at_ms, 5);
    let taken = backup::create_of(&data(&world), &place.join("backup"), &SystemIds, 5);
    assert!(matches!(taken, Err(BackupError::Taken(_))));
    let bundle =
        made.manifest.files.iter().find(|file| file.name.starts_with("evidence/")).unwrap().name.clone();
    let key = data(&world).join(RECOVERY_FILE);
    let flip = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    type Touch<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, Touch<'_>)> = vec![
        ("database", Box::new(|at| flip(at.join("writ.db")))),
        ("keys", Box::new(|at| flip(at.join("keys.sealed")))),
        ("bundle", Box::new(|at| flip(at.join(&bundle)))),
        ("manifest", Box::new(|at| flip(at.join("manifest.json")))),
        ("signature", Box::new(|at| flip(at.join("manifest.sig")))),
        ("bundle gone", Box::new(|at| fs::remove_file(at.join(&bundle)).unwrap())),
        ("database gone", Box::new(|at| fs::remove_file(at.join("writ.db")).unwrap())),
        ("one more", Box::new(|at| fs::write(at.join("more"), "x").unwrap())),
        ("one more below", Box::new(|at| fs::write(at.join("evidence/more"), "x").unwrap())),
        ("a link", Box::new(|at| std::os::unix::fs::symlink("/etc/hostname", at.join("link")).unwrap())),
    ];
    for (what, touch) in cases {
        let touched = place.join("touched");
        copy(&place.join("backup"), &touched);
        touch(&touched);
        assert!(backup::verify_of(&touched, &data(&world)).is_err(), "{what}");
        let to = place.join("restored");
        assert!(backup::restore(&touched, &key, &to).is_err(), "{what}");
        assert!(!to.exists() && !place.join("restored.restoring").exists(), "{what}: something is left");
        fs::remove_dir_all(&touched).unwrap();
    }
    // Whole, and somebody else's.
    let stranger = World::start().await;
    let theirs = backup::verify_of(&place.join("backup"), &data(&stranger));
    assert!(matches!(theirs, Err(BackupError::Invalid(_))), "{theirs:?}");
    backup::verify(&place.join("backup"), None).unwrap();
    backup::create_of(&data(&stranger), &place.join("other"), &SystemIds, 5).unwrap();
    let wrong_key =
        backup::restore(&place.join("backup"), &data(&stranger).join(RECOVERY_FILE), &place.join("x"));
    assert!(matches!(wrong_key, Err(BackupError::Keys(_))), "{wrong_key:?}");
}
