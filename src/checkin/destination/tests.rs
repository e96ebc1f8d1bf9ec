use std::net::TcpListener;
use std::sync::Mutex;

use super::*;

/// Never an address of a registry that the world can reach.
#[rustfmt::skip]
const PRIVATE: &[&str] = &[
    "0.0.0.0", "0.0.0.1", "10.0.0.0", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.0.0.2",
    "127.255.255.255", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.170",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7",
    "203.0.113.7", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::2", "::7f00:1",
    "::10.0.0.1", "::ffff:0.0.0.0", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:192.168.1.1",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdaa::3", "fe80::1",
    "febf::1", "fec0::1", "ff02::1", "ff0e::1",
];

#[rustfmt::skip]
const PUBLIC: &[&str] = &[
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.0.0.1", "128.0.0.1",
    "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.0.1", "198.17.0.1", "198.20.0.1", "223.255.255.255",
    "::ffff:8.8.8.8", "2001:4860:4860::8888", "2606:4700::1111", "2a09:8280:1::1", "2001:200::1",
];

#[test]
fn private_addresses_are_not_dialled_in_whatever_form() {
    assert!(PRIVATE.len() >= 60, "{}", PRIVATE.len());
    for text in PRIVATE {
        let address: IpAddr = text.parse().unwrap();
        assert!(check(address, false).is_err(), "{text}");
        let url = if address.is_ipv6() { format!("https://[{text}]") } else { format!("https://{text}") };
        assert!(Destination::parse(&url, false).is_err(), "{url}");
        // A name that leads there is no way around.
        let named = Destination::parse("https://registry.example", false).unwrap();
        assert!(named.addresses(&Fixed(vec![address])).is_err(), "{text}");
        assert!(named.addresses(&Fixed(vec!["8.8.8.8".parse().unwrap(), address])).is_err(), "{text} as one of two");
    }
    for text in PUBLIC {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(check(address, false), Ok(()), "{text}");
    }
}

#[test]
fn what_is_allowed_in_a_private_network_and_what_is_not_even_there() {
    for text in ["10.0.0.1", "127.0.0.1", "::1", "192.168.1.1", "fdaa::3", "100.64.0.1", "::ffff:10.0.0.1"] {
        assert_eq!(check(text.parse().unwrap(), true), Ok(()), "{text}");
    }
    let never =
        ["0.0.0.0", "0.1.2.3", "169.254.169.254", "::ffff:169.254.169.254", "224.0.0.1", "255.255.255.255", "::"];
    for text in never.into_iter().chain(["fe80::1", "ff02::1", "240.0.0.1"]) {
        assert!(check(text.parse().unwrap(), true).is_err(), "{text}");
    }
}

/// Forms that some programs take for an address, and URLs that mean something else than they seem to.
#[rustfmt::skip]
const ODD: &[&str] = &[
    "", "https://", "https:///", "http://registry.example", "HTTPS://registry.example", "ftp://registry.example",
    "registry.example", "//registry.example", "https:registry.example", " https://registry.example",
    "https://registry.example ", "https://registry.example\n", "https://registry .example", "https://\tregistry.example",
    "https://2130706433", "https://017700000001", "https://0x7f000001", "https://0x7f.1", "https://0X7F.0.0.1",
    "https://127.1", "https://127.0.1", "https://0177.0.0.1", "https://127.0.0.01", "https://127.0.0.1.",
    "https://127.0.0.1.1", "https://256.0.0.1", "https://1.2.3", "https://0", "https://0.0", "https://registry.0x10",
    "https://registry.1", "https://registry.example.", "https://.registry.example", "https://registry..example",
    "https://localhost.", "https://-a.example", "https://a-.example", "https://a_b.example",
    "https://[::ffff:a9fe:a9fe", "https://[::1%25lo]", "https://[fe80::1%eth0]", "https://[v1.x]", "https://[]",
    "https://[::1]x", "https://x[::1]", "https://::1", "https://[127.0.0.1]",
    "https://user@registry.example", "https://user:word@registry.example", "https://registry.example@127.0.0.1",
    "https://registry.example:@127.0.0.1", "https://registry.example\\@127.0.0.1", "https://registry.example%40x",
    "https://%6c%6f%63%61lhost", "https://127%2e0%2e0%2e1", "https://registry.example%00.com",
    "https://１２７.0.0.1", "https://127。0。0。1", "https://ⓛocalhost", "https://rеgistry.example", "https://ʟocalhost",
    "https://registry.example:0", "https://registry.example:65536", "https://registry.example:", "https://a.example:+1",
    "https://registry.example:443:443", "https://registry.example:0x1bb", "https://registry.example:4 3",
    "https://registry.example?x", "https://registry.example/?x=1", "https://registry.example/#x",
    "https://registry.example#@127.0.0.1", "https://registry.example/../admin", "https://registry.example/a//b",
    "https://registry.example/%2e%2e/", "https://registry.example/a;b", "https://registry.example/./a",
    "https://registry.example//", "https://registry.example/ü", "https://registry.example/a\r\nHost: x",
];

#[test]
fn odd_urls_are_refused_even_where_private_addresses_are_allowed() {
    for url in ODD {
        for allow_private in [false, true] {
            let parsed = Destination::parse(url, allow_private);
            assert!(parsed.is_err(), "{url:?}: {parsed:?}");
        }
    }
    let long = format!("https://{}.example", "a".repeat(64));
    assert!(Destination::parse(&long, true).is_err());
    assert!(Destination::parse(&format!("https://{}", "a.".repeat(127) + "ab"), true).is_err());
    assert!(Destination::parse(&format!("https://a.example/{}", "a".repeat(300)), true).is_err());
}

#[test]
fn plain_urls_lead_to_the_one_route() {
    for (given, url) in [
        ("https://registry.example", "https://registry.example:443/v1/agent/checkin"),
        ("https://Registry.Example/", "https://registry.example:443/v1/agent/checkin"),
        ("https://registry.example:8443/fleet/one", "https://registry.example:8443/fleet/one/v1/agent/checkin"),
        ("https://xn--rgistry-cya.example", "https://xn--rgistry-cya.example:443/v1/agent/checkin"),
        ("https://8.8.8.8:1", "https://8.8.8.8:1/v1/agent/checkin"),
        ("https://[2606:4700::1111]", "https://[2606:4700::1111]:443/v1/agent/checkin"),
        ("https://[2606:4700::1111]:9", "https://[2606:4700::1111]:9/v1/agent/checkin"),
    ] {
        let destination = Destination::parse(given, false).unwrap();
        assert_eq!(format!("{}{}", destination.base(), crate::checkin::wire::PATH), url);
        assert!(destination.server_name().is_ok());
        assert!(url.parse::<ureq::http::Uri>().is_ok());
    }
}

#[derive(Debug)]
struct Fixed(Vec<IpAddr>);

impl Names for Fixed {
    fn find(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Ok(self.0.clone())
    }
}

/// Public at first, the machine itself afterwards.
#[derive(Debug, Default)]
struct Rebinding(Mutex<u32>);

impl Names for Rebinding {
    fn find(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        // One where nothing answers stands for a public one: what matters is what is asked and dialled afterwards.
        Ok(vec![if *asked == 1 { "8.8.8.8".parse().unwrap() } else { "127.0.0.1".parse().unwrap() }])
    }
}

#[test]
fn a_name_that_changes_its_mind_is_asked_every_time_and_dialled_never() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let destination = Destination::parse(&format!("https://registry.example:{port}"), false).unwrap();
    let names = Arc::new(Rebinding::default());
    assert_eq!(
        destination.addresses(&*names).unwrap(),
        ["8.8.8.8".parse::<IpAddr>().map(|a| (a, port).into()).unwrap()]
    );
    let mut config = crate::config::Config::default();
    config.registry.url = Some(format!("https://registry.example:{port}"));
    config.registry.pin_sha256 = Some([7; 32]);
    config.machine.secret = Some(crate::secret::Secret::new("a".repeat(32)));
    let sender = super::super::send::Sender::new(&config, names.clone()).unwrap();
    for _ in 0..3 {
        let failure = sender.send(b"{}", None).unwrap_err();
        assert!(failure.why.contains("127.0.0.1 is not a public address"), "{failure:?}");
    }
    assert_eq!(*names.0.lock().unwrap(), 4, "asked for every connection");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came");
    // The listener would have noticed: allowed, somebody comes.
    config.registry.allow_private = true;
    let sender = super::super::send::Sender::new(&config, names).unwrap();
    assert!(sender.send(b"{}", Some(Duration::from_millis(300))).is_err());
    assert!(listener.accept().is_ok());
}
