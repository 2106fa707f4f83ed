//! Headless Chromium, driven by its own driver over WebDriver, as a person would: it looks, presses keys, and turns the
//! phone. `scripts/install-test-tools` installs both.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::eventually;
use super::process::Process;

/// A browser with one tab and a profile of its own.
pub struct Browser {
    session: String,
    agent: ureq::Agent,
    // Ends the browser before the driver, and both before the profile.
    _driver: Process,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn open() -> Self {
        let mut command = Command::new("chromedriver");
        command.args(["--port=0", "--allowed-ips=127.0.0.1"]);
        let mut driver = Process::spawn(command);
        let port = driver.wait_for_output("started successfully on port ");
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
        let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        let address = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
        let arguments = [
            "--headless=new".to_owned(),
            // Tests may run as root, in a container; the pages are this program's own.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let made = call(&agent, &format!("{address}/session"), &wanted);
        let id = made["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}"));
        Browser { session: format!("{address}/session/{id}"), agent, _driver: driver, _profile: profile }
    }

    pub fn go(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// What the body of a function returns.
    pub fn evaluate(&self, body: &str) -> Value {
        self.post("execute/sync", &json!({"script": body, "args": []}))
    }

    /// The visible text of an element, by a selector.
    pub fn text(&self, selector: &str) -> String {
        let found = self.evaluate(&format!("return document.querySelector({selector:?}).innerText"));
        found.as_str().unwrap_or_else(|| panic!("{selector} has no text: {found}")).to_owned()
    }

    pub fn wait_for_text(&self, selector: &str, wanted: &str) {
        eventually(&format!("{selector} shows {wanted:?}"), || {
            let text = self.text(selector);
            if text.contains(wanted) { Ok(()) } else { Err(text) }
        });
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &str) {
        let step = |key: char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let steps: Vec<Value> = keys.chars().flat_map(step).collect();
        self.post("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": steps}]}));
    }

    /// Makes the screen so wide, and light or dark.
    pub fn show_as(&self, width: u32, scheme: &str) {
        let mobile = width < 600;
        self.tool(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": mobile}),
        );
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.tool("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
    }

    /// Role and name of all that a screen reader meets.
    pub fn announced(&self) -> Vec<(String, String)> {
        let tree = self.tool("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {tree}"));
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let shown = nodes.iter().filter(|node| node["ignored"] != true);
        shown.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
    }

    /// A command of the browser's own tools.
    fn tool(&self, command: &str, parameters: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        call(&self.agent, &format!("{}/{command}", self.session), body)
    }
}

fn call(agent: &ureq::Agent, url: &str, body: &Value) -> Value {
    let request = agent.post(url).header("Content-Type", "application/json");
    let mut response = request.send(body.to_string()).unwrap_or_else(|error| panic!("{url}: {error}"));
    let text = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("{url}: {error}"));
    assert_eq!(response.status(), 200, "{url}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error} in {text}"));
    answer["value"].clone()
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
    }
}
