//! A Prometheus of a test's own, which reads the project's prometheus.yml and alerts.yml, only more often.
//! `scripts/install-test-tools` installs it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::Process;

/// What the project's file says, and what the test wants instead.
const IN_PLACE_OF: [(&str, &str); 3] = [
    ("scrape_interval: 15s", "scrape_interval: 1s"),
    ("scrape_timeout: 10s", "scrape_timeout: 1s"),
    ("evaluation_interval: 15s", "evaluation_interval: 500ms"),
];

/// A running server.
pub struct Prometheus {
    url: String,
    agent: ureq::Agent,
    // Ends before its directory.
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes this address in place of `ingestor:8070`.
    pub fn scraping(ingestor: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("prometheus.yml");
        fs::write(&path, configuration(ingestor)).expect("the directory is this test's own");
        fs::write(directory.path().join("alerts.yml"), project_file("alerts.yml"))
            .expect("the directory is this test's own");
        // It prints to standard error, where nobody waits for lines.
        let mut command = Command::new("sh");
        command.args(["-c", "exec prometheus \"$@\" 2>&1", "prometheus", "--web.listen-address=127.0.0.1:0"]);
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        let mut process = Process::spawn(command);
        let rest = process.wait_for_output("msg=\"Listening on\" address=");
        let address = rest.split(' ').next().unwrap_or(&rest);
        let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
        let agent = config.timeout_global(Some(Duration::from_secs(10))).build().new_agent();
        Prometheus { url: format!("http://{address}/api/v1"), agent, _process: process, _directory: directory }
    }

    /// The value of each sample that an instant query returns.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let data = self.get("query", &[("query", expression)])?;
        let samples = data["result"].as_array().ok_or_else(|| format!("{expression} returns {data}"))?;
        let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        samples.iter().map(|sample| value(sample).ok_or_else(|| format!("{expression} returns {sample}"))).collect()
    }

    /// The alerting rules, as `/rules` lists them.
    pub fn rules(&self) -> Result<Vec<Value>, String> {
        let data = self.get("rules", &[])?;
        let groups = data["groups"].as_array().ok_or("no groups")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    /// Alerts whose expression is true now, whether or not it has been for long enough.
    pub fn alerts(&self) -> Result<Vec<Value>, String> {
        let data = self.get("alerts", &[])?;
        Ok(data["alerts"].as_array().ok_or("no alerts")?.clone())
    }

    fn get(&self, target: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.agent.get(format!("{}/{target}", self.url)).query_pairs(parameters.iter().copied());
        let mut response = request.call().map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(text) }
    }
}

/// The project's own, without the services that only a compose file's network has a name for.
fn configuration(ingestor: SocketAddr) -> String {
    let text = project_file("prometheus.yml");
    let (mut text, _) =
        text.split_once("    dns_sd_configs:").map(|(head, rest)| (head.to_owned(), rest)).expect("it is there");
    let target = ingestor.to_string();
    for (stated, wanted) in IN_PLACE_OF.iter().copied().chain([("- ingestor:8070", format!("- {target}").as_str())]) {
        assert_eq!(text.matches(stated).count(), 1, "prometheus.yml states {stated} once");
        text = text.replace(stated, wanted);
    }
    text
}

/// A file of the repository.
pub fn project_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}
