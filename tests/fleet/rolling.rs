//! A rolling restart of a whole fleet under load: no request fails, and every pulse counts once.

use std::time::Instant;

use crate::haproxy::Haproxy;
use crate::steady_load::SteadyLoad;
use crate::support::TestStore;
use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::receiver::Receiver;

/// Requests a second, as far as the build and the machine allow.
const RATE: u32 = 5000;
const STORED: &str = "ingestor_pulses_total{outcome=\"stored\"}";
const LEASE: &str = "ingestor_lease_held";

#[test]
fn a_rolling_restart_of_everything_fails_no_request() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let url = receiver.url();
    // What deploy/haproxy.cfg asks of them. Windows of a second, so that there is always something to deliver.
    let mut ingestors = [(); 3].map(|()| Ingestor::start_as("ingest", &store, &[("DRAIN_DELAY", "3s")]));
    let settings = [("API_URL_SENDER", url.as_str()), ("LEASE_DURATION", "30s")];
    let mut senders = [(); 2].map(|()| Ingestor::start_as("send", &store, &settings));
    let proxy = Haproxy::start(ingestors.each_ref().map(Ingestor::address));
    let load = SteadyLoad::start(proxy.address(), &proxy.certificate(), RATE);
    load.wait_for_acknowledged(u64::from(RATE));
    for ingestor in &mut ingestors {
        restart(ingestor);
        // The next one leaves only once this one is back.
        ingestor.wait_for_metric(STORED, |stored| stored > 100.0);
    }
    for number in 0..senders.len() {
        restart(&mut senders[number]);
        // Had the lease not been given back, this would take longer than the whole load.
        let since = Instant::now();
        while senders.iter().map(|sender| sender.metric(LEASE)).sum::<f64>() != 1.0 {
            assert!(since.elapsed().as_secs() < 20, "nobody delivers");
        }
        load.wait_for_acknowledged(u64::from(RATE));
    }
    assert_eq!(load.ask(&request("GET", "/metrics", &[], b"")), 404, "that is for operators");
    let sent = load.finish();
    println!("{} requests, {:.0} a second", sent.acknowledged, sent.rate);
    assert!(sent.failures.is_empty(), "{:#?}\n{}", sent.failures, proxy.output());
    for ingestor in &ingestors {
        let [accepted, stored] = ["ingestor_connections_accepted_total", STORED].map(|sample| ingestor.metric(sample));
        assert!(stored > 5.0 * accepted, "{accepted} connections for {stored} pulses: they are not used again");
    }
    senders[0].wait_until_at_rest();
    assert_eq!(receiver.kb(), sent.acknowledged.to_string());
}

/// Drains it and starts it again at its own address, as its supervisor would.
fn restart(ingestor: &mut Ingestor) {
    ingestor.set("INGESTOR_PORT", &ingestor.address().port().to_string());
    assert!(ingestor.terminate().success(), "{}", ingestor.output());
    ingestor.start_again();
}
