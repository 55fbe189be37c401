//! Names that stand for something else than they should.

use egress::{Allowlist, Method, Request, Rule, Sent};

use crate::house::{HOUSE, Names, Server, client, get, house_list, ok, parts, private};

#[tokio::test]
async fn e01_a_refused_address_is_never_connected_to() {
    let server = Server::answering(ok("secret")).await;
    let list = || {
        Allowlist::new(vec![Rule::parse(&format!("http://tenant.test:{}", server.port)).unwrap()]).unwrap()
    };
    let table: &[&[&str]] = &[
        &["127.0.0.1"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["0.0.0.0"],
        &["169.254.169.254"],
        // Mixed: the first would do, one of the others must not even be there.
        &["93.184.216.34", "127.0.0.1"],
        &["127.0.0.1", "93.184.216.34"],
        &["2001:4860:4860::8888", "10.0.0.1"],
    ];
    for answer in table {
        let names = Names::new(&[("tenant.test", &[answer])]);
        let url = format!("http://tenant.test:{}/", server.port);
        let found = parts(client(names).send(Request::new(Method::GET, url, list())).await);
        assert_eq!(found, ("egress.address_refused", Sent::NotSent, None), "{answer:?}");
    }
    assert_eq!(server.seen.connections(), 0);
}

#[tokio::test]
async fn address_literals_need_permission_too() {
    let server = Server::answering(ok("secret")).await;
    let names = Names::new(&[]);
    let origin = format!("http://127.0.0.1:{}", server.port);
    let list = Allowlist::parse([origin.as_str()]).unwrap();
    let found = parts(client(names.clone()).send(Request::new(Method::GET, &origin, list)).await);
    assert_eq!(found, ("egress.address_refused", Sent::NotSent, None));
    assert_eq!(server.seen.connections(), 0);

    let list = Allowlist::new(vec![private(&origin)]).unwrap();
    assert!(client(names.clone()).send(Request::new(Method::GET, &origin, list)).await.is_ok());
    assert!(names.asked().is_empty(), "an address is not resolved");
}

#[tokio::test]
async fn permission_for_private_addresses_stops_at_metadata() {
    for ip in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "224.0.0.1"] {
        let names = Names::new(&[(HOUSE, &[&[ip]])]);
        let request = Request::new(Method::GET, format!("http://{HOUSE}:80/"), house_list(80));
        assert_eq!(parts(client(names).send(request).await).0, "egress.address_refused", "{ip}");
    }
}

#[tokio::test]
async fn e04_the_address_that_was_judged_is_the_one_connected_to() {
    // The name moves right after it was asked for: 127.0.0.2 is the place that a rebinding name wants reached.
    let server = Server::answering(ok("right")).await;
    let trap = Server::start_at(&format!("127.0.0.2:{}", server.port), |mut stream, seen| async move {
        seen.read(&mut stream).await;
    })
    .await;
    let names = Names::new(&[(HOUSE, &[&["127.0.0.1"], &["127.0.0.2"]])]);
    let reply = client(names.clone()).send(get(&server, "/")).await.unwrap();
    assert_eq!(&reply.body[..], b"right");
    assert_eq!(names.asked(), [HOUSE], "there is no second question");
    assert_eq!(trap.seen.connections(), 0);
}

#[tokio::test]
async fn e04_a_name_that_turns_private_is_refused_the_next_time() {
    let server = Server::answering(ok("x")).await;
    let names = Names::new(&[(HOUSE, &[&["127.0.0.1"], &["169.254.169.254"]])]);
    let egress = client(names);
    assert!(egress.send(get(&server, "/")).await.is_ok());
    assert_eq!(parts(egress.send(get(&server, "/")).await).0, "egress.address_refused");
}

#[tokio::test]
async fn nothing_is_resolved_for_a_request_that_is_refused_earlier() {
    let names = Names::house();
    let egress = client(names.clone());
    let urls = [
        "http://other.test/",
        "https://house.test/",
        "http://house.test:22/",
        "http://house.test./",
        "http://2130706433/",
        "ftp://house.test/",
    ];
    for url in urls {
        assert!(egress.send(Request::new(Method::GET, url, house_list(80))).await.unwrap_err().is_refusal());
    }
    assert!(names.asked().is_empty());
}

#[tokio::test]
async fn the_systems_resolver_is_judged_like_any_other() {
    let server = Server::answering(ok("x")).await;
    let house = crate::house::client_with(Names::house(), |config| {
        config.resolver = std::sync::Arc::new(egress::SystemResolver);
    });
    let origin = format!("http://localhost:{}", server.port);
    let tenant = Allowlist::parse([origin.as_str()]).unwrap();
    let found = parts(house.egress.send(Request::new(Method::GET, &origin, tenant)).await);
    assert_eq!(found, ("egress.address_refused", Sent::NotSent, None));
    let operator = Allowlist::new(vec![private(&origin)]).unwrap();
    assert!(house.egress.send(Request::new(Method::GET, &origin, operator)).await.is_ok());
}
