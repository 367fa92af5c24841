//! Headquarters' broker as a cluster: three nodes of NATS JetStream that speak MQTT, on loopback.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    gateway::quiet_port,
    support::{eventually, rig, wait_for_port, which},
};

/// A cluster elects its leaders within seconds; on a busy machine it may have to do so again.
const ELECTED: Duration = Duration::from_secs(40);

/// Three nodes with a disk each. What is killed may be started again, and then has its disk and its ports again.
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
}

struct Node {
    port: u16,
    mqtt: u16,
    cluster: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts three nodes and waits until they keep sessions.
    pub fn start() -> Self {
        let node = || Node { port: quiet_port(), mqtt: quiet_port(), cluster: quiet_port(), child: None };
        let mut this = Self { dir: tempfile::tempdir().unwrap(), nodes: (0..3).map(|_| node()).collect() };
        (0..3).for_each(|n| this.start_node(n));
        // One after the other: two nodes that make their streams for MQTT at the same moment may disagree on them.
        (0..3).for_each(|n| this.wait_for(n));
        this
    }

    /// Where a node speaks MQTT.
    pub fn mqtt(&self, n: usize) -> u16 {
        self.nodes[n].mqtt
    }

    /// Which node a gateway's word about its connection names.
    pub fn named(&self, detail: &str) -> Option<usize> {
        self.nodes.iter().position(|node| detail.contains(&format!("127.0.0.1:{}", node.mqtt)))
    }

    /// As a cut of power to the machine would end it, but for what the kernel had not yet written.
    pub fn kill(&mut self, n: usize) {
        let mut child = self.nodes[n].child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a node, and does not wait.
    pub fn start_node(&mut self, n: usize) {
        let routes: Vec<_> = self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.cluster)).collect();
        let (dir, node) = (self.dir.path(), &mut self.nodes[n]);
        let template = std::fs::read_to_string(rig().join("nats.conf")).unwrap();
        let conf = [
            ("{name}", format!("hq-{n}")),
            ("{port}", node.port.to_string()),
            ("{store}", dir.join(format!("store-{n}")).display().to_string()),
            ("{mqtt}", node.mqtt.to_string()),
            ("{cluster}", node.cluster.to_string()),
            ("{routes}", routes.join(", ")),
        ]
        .iter()
        .fold(template, |conf, (what, with)| conf.replace(what, with));
        let path = dir.join(format!("{n}.conf"));
        std::fs::write(&path, conf).unwrap();
        let child = Command::new(which("nats-server"))
            .arg("-c")
            .arg(path)
            .arg("-l")
            .arg(dir.join(format!("{n}.log")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server (apt-get install nats-server)");
        node.child = Some(child);
    }

    /// Waits until a node has a quorum beside it: only then can it make a session.
    pub fn wait_for(&self, n: usize) {
        let port = self.mqtt(n);
        wait_for_port(port, "nats-server");
        eventually(ELECTED, "the cluster keeps sessions", || {
            self.subscribes(n, &["-i", &format!("probe-{n}")]).then_some(())
        });
    }

    /// Makes the persistent session of a subscriber to all gateways, who is then away.
    pub fn session(&self, n: usize, id: &str) {
        assert!(self.subscribes(n, &["-c", "-i", id]));
    }

    fn subscribes(&self, n: usize, who: &[&str]) -> bool {
        let port = self.mqtt(n).to_string();
        let done = Command::new("timeout")
            .arg("5")
            .arg(which("mosquitto_sub"))
            .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "chowki/#", "-E"])
            .args(who)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("mosquitto_sub (apt-get install mosquitto-clients)");
        done.success()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (n, node) in self.nodes.iter_mut().enumerate() {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{n}.log"))).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                eprintln!("---- node {n}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
    }
}
