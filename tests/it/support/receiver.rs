//! `ingestor receive` of a test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::http::{self, Connection};
use super::ingestor::program;
use super::process::Process;
use super::pulses::{self, Totals};

/// A running receiver and its directory.
pub struct Receiver {
    directory: tempfile::TempDir,
    process: Process,
    address: SocketAddr,
}

impl Receiver {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with more arguments, until it is started again.
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (process, address) = receive(&directory, 0, arguments);
        Receiver { directory, process, address }
    }

    /// Ends it at once; what it confirmed stays.
    pub fn kill(&mut self) {
        self.process.kill_9();
    }

    /// Starts it again on its data and its port.
    pub fn start_again(&mut self) {
        (self.process, self.address) = receive(&self.directory, self.address.port(), &[]);
    }

    /// Where batches are sent to.
    pub fn url(&self) -> String {
        format!("http://{}/process", self.address)
    }

    /// Changes how it misbehaves.
    pub fn set_faults(&self, faults: &str) {
        let mut connection = Connection::open(self.address).expect("the receiver listens");
        let bytes = http::request("POST", "/_faults", &[("Connection", "close")], faults.as_bytes());
        connection.send(&bytes).expect("the receiver reads");
        let response = connection.receive().expect("the receiver answers");
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Every sum, by tenant, SKU and unit.
    pub fn totals(&self) -> Totals {
        let text = |row: &Value, member: &str| row[member].as_str().expect("members are text").to_owned();
        let total = |row: &Value| {
            let key = (text(row, "tenant_id"), text(row, "product_sku"), text(row, "use_unit"));
            (key, pulses::nanos(&text(row, "used_amount")))
        };
        self.rows("/totals").iter().map(total).collect()
    }

    /// The sum of KB, with all its digits.
    pub fn kb(&self) -> String {
        let units = self.rows("/totals/units");
        let kb = units.iter().find(|unit| unit["use_unit"] == "KB").expect("every unit is listed");
        kb["used_amount"].as_str().expect("amounts are text").to_owned()
    }

    /// Every batch in the order of arrival.
    pub fn batches(&self) -> Vec<Value> {
        self.rows("/batches")
    }

    /// Whatever it lists there.
    pub fn rows(&self, target: &str) -> Vec<Value> {
        let response = http::get(self.address, target).expect("the receiver answers");
        assert_eq!(response.status, 200, "{}", response.text());
        response.json().as_array().expect("it is a list").clone()
    }
}

fn receive(directory: &tempfile::TempDir, port: u16, arguments: &[&str]) -> (Process, SocketAddr) {
    let mut command = program(directory.path(), &BTreeMap::new());
    command.args(["receive", "--port", &port.to_string(), "--data-dir", "received"]).args(arguments);
    let mut process = Process::spawn(command);
    let rest = process.wait_for_output("listening on http://");
    let address = rest.split('/').next().and_then(|address| address.parse().ok());
    (process, address.unwrap_or_else(|| panic!("no address in {rest:?}")))
}
