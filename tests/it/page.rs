//! The status page, in a real browser.

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually, on_both_stores};

on_both_stores!(a_person_sees_how_it_is_doing);

/// WebDriver's names of keys.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

fn page_of(ingestor: &Ingestor) -> String {
    format!("http://{}/", ingestor.address())
}

fn a_person_sees_how_it_is_doing(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    let browser = Browser::open();
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#state", "takes pulses");
    browser.wait_for_text("#open", "0A");
    browser.wait_for_text("#attention", "Nothing.");
    assert!(browser.text("#durability").len() > 20, "in words");
    assert!(browser.text("#receiver").contains(&receiver.url()));
    assert_eq!(browser.text("#version"), env!("CARGO_PKG_VERSION"));

    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    browser.wait_for_text("#ledger", "1.5");
    browser.wait_for_text("#stored", "1 pulse ");
    ingestor.run_well(&["cycle", "now"]);
    browser.wait_for_text("#open", "1B");
    browser.wait_for_text("#cycles", "1 of 1");
    browser.wait_for_text("#balance", "balances");

    // Something that an operator must look at.
    assert_eq!(ingestor.post(&pulse("bad", "2")).status, 204);
    assert_eq!(ingestor.run(&["cycle", "now"]).status.code(), Some(1));
    browser.wait_for_text("#dead", "1 batch");
    browser.wait_for_text("#attention", "among the dead letters");
    browser.wait_for_text("#state", "needs attention");

    ingestor.kill_9();
    browser.wait_for_text("#state", "no answer");
}

#[test]
fn a_store_that_is_away_is_seen() {
    let mut store = TestStore::redis();
    let ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h")]);
    let browser = Browser::open();
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#state", "takes pulses");
    store.server().kill();
    browser.wait_for_text("#state", "takes no pulses");
    browser.wait_for_text("#attention", "The store can't be read");
}

/// Text and background that are too much alike (WCAG AA asks for 4.5), with the ratio.
const TOO_FAINT: &str = r#"
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => {
  const [r, g, b] = channels(color).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!own || !element.checkVisibility()) continue;
  const [high, low] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) faint.push(element.tagName + " " + element.textContent.slice(0, 30) + " " + ratio.toFixed(2));
}
return faint;
"#;

#[test]
fn the_page_suits_a_phone_the_dark_and_a_screen_reader() {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let settings = [("INTERVAL_TO_SEND", "24h"), ("BATCH_QTY_TO_SEND", "1")];
    let ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &settings);
    // As wide as amounts get.
    assert_eq!(ingestor.post(&list(&[pulse("a", "999999999999999999.123456789"), pulse("bad", "2")])).status, 200);
    assert_eq!(ingestor.run(&["cycle", "now"]).status.code(), Some(1));
    let browser = Browser::open();
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#cycles", "1 of 2");
    let mut grounds = Vec::new();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        browser.show_as(width, scheme);
        let wide = browser.evaluate("return document.documentElement.scrollWidth - window.innerWidth");
        assert!(wide.as_f64() <= Some(0.0), "{wide} pixels are beyond the edge at {width}");
        assert_eq!(browser.evaluate(TOO_FAINT), Value::Array(vec![]), "{scheme} at {width}");
        grounds.push(browser.evaluate("return getComputedStyle(document.body).backgroundColor"));
        let announced = browser.announced();
        let is_there = |role: &str, name: &str| announced.iter().any(|node| node.0 == role && node.1.contains(name));
        for (role, name) in [
            ("heading", "Ingestor de Consumo"),
            ("heading", "Needs attention"),
            ("heading", "Ledger"),
            ("table", "it must be 0"),
            ("rowheader", "KB"),
            ("status", ""),
            ("button", "Pause"),
            ("link", "metrics"),
            ("progressbar", "window"),
        ] {
            assert!(is_there(role, name), "no {role} {name:?} at {width} among {announced:?}");
        }
        let operable = ["button", "link", "textbox"];
        let unnamed: Vec<_> =
            announced.iter().filter(|node| operable.contains(&node.0.as_str()) && node.1.is_empty()).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
    assert!(grounds[0] != grounds[1] && grounds[2] != grounds[3], "light and dark are two: {grounds:?}");

    let sources = "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)";
    let hosts = browser.evaluate(sources);
    let hosts = hosts.as_array().expect("they are listed");
    assert!(!hosts.is_empty() && hosts.iter().all(|host| *host == ingestor.address().to_string()), "{hosts:?}");
}

#[test]
fn the_page_is_worked_by_keyboard() {
    let ingestor = Ingestor::start(&[]);
    let browser = Browser::open();
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#state", "takes pulses");
    let focused = || {
        let name = browser.evaluate(
            "const e = document.activeElement; return e.id || e.getAttribute('aria-labelledby') || e.textContent",
        );
        name.as_str().expect("it has a name").to_owned()
    };
    let mut met = Vec::new();
    for _ in 0..8 {
        browser.press(TAB);
        met.push(focused());
    }
    let expected =
        ["Skip to the figures", "ledger-title", "cycles-title", "pause", "status.json", "ledger", "metrics", "readyz"];
    assert_eq!(met, expected);
    browser.evaluate("document.getElementById('pause').focus()");
    browser.press(ENTER);
    assert_eq!(browser.evaluate("return document.getElementById('pause').getAttribute('aria-pressed')"), "true");
    let asked = || browser.evaluate("return performance.getEntriesByType('resource').length");
    eventually("nothing more is asked", || {
        let before = asked();
        std::thread::sleep(std::time::Duration::from_millis(2500));
        let after = asked();
        if before == after { Ok(()) } else { Err(format!("{before}, then {after}")) }
    });
    browser.press(ENTER);
    let paused_at = asked();
    eventually("it goes on", || if asked() != paused_at { Ok(()) } else { Err("it does not".to_owned()) });
}

#[test]
fn the_page_asks_for_a_key() {
    let mut ingestor = Ingestor::start(&[]);
    assert!(ingestor.terminate().success());
    std::fs::write(ingestor.directory().join("api-keys"), "").expect("its directory can be written");
    ingestor.set("API_KEYS_FILE", "api-keys");
    let new_key = |more: &[&str]| {
        let printed = ingestor.run_well(&[&["keys", "new", "--name"], more].concat());
        printed.trim_end().to_owned()
    };
    let (some, all) = (new_key(&["some", "--tenants", "a"]), new_key(&["all"]));
    ingestor.start_again();

    assert_eq!(ingestor.get("/status.json").status, 401);
    assert_eq!(ingestor.exchange(&request("GET", "/status.json", &[("X-Api-Key", &some)], b"")).status, 403);
    let port = ingestor.address().port().to_string();
    let told = ingestor.run_well(&["status", "--port", &port, "--json", "--api-key", &all]);
    assert!(serde_json::from_str::<Value>(&told).is_ok_and(|told| told["server"]["takes_pulses"] == true), "{told}");

    let browser = Browser::open();
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#state", "asks for a key");
    browser.evaluate("document.getElementById('key').focus()");
    browser.press(&some);
    browser.press(ENTER);
    browser.wait_for_text("#ask-why", "for some tenants only");
    browser.press(&all);
    browser.press(ENTER);
    browser.wait_for_text("#state", "takes pulses");
    assert_eq!(browser.evaluate("return document.getElementById('key').value"), "");
    browser.go(&page_of(&ingestor));
    browser.wait_for_text("#state", "takes pulses");
}
