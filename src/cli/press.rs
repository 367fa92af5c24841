//! `chowki press`: presses a button as a device would, over MQTT, and follows it until headquarters has it.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

use super::{check, demo, exit};
use crate::{
    config::{self, Ports},
    district::{
        ids::ButtonId,
        inventory::ButtonCredential,
        press::{Progress, StateMessage},
    },
    host::clock,
};

/// Press a button, as a device would, and follow it until headquarters has it.
///
/// Connects with the button's own password, so it proves what the button could do. The button's real device is
/// disconnected for that moment and comes back by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki press saddar-01                                    against a running `chowki demo`
  chowki press saddar-01 --config district.toml --kind test
  chowki press saddar-01 --until dispatched --timeout 600 --json

Exit status: 0 followed as far as asked, 1 not in time, 66 or 78 as `chowki check`.")]
pub struct Args {
    /// The button.
    pub button: String,
    /// The gateway's config: its address and the button's password. Without it, the running demo's.
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// What the press is about.
    #[arg(long, value_enum, default_value = "panic")]
    pub kind: Kind,
    /// Follow it until this is told.
    #[arg(long, value_enum, default_value = "delivered")]
    pub until: Until,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 15)]
    pub timeout: u64,
    /// Print each step as a line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a press is about.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs, reason = "they are the words of `district::press::PressKind`")]
pub enum Kind {
    Panic,
    Medical,
    Fire,
    Accident,
    Tamper,
    Test,
}

/// How far a press is followed.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs, reason = "they are the words of `district::press::Progress`")]
pub enum Until {
    Recorded,
    Delivered,
    Seen,
    Dispatched,
    Closed,
}

impl Until {
    fn progress(self) -> Progress {
        match self {
            Until::Recorded => Progress::Recorded,
            Until::Delivered => Progress::Delivered,
            Until::Seen => Progress::Seen,
            Until::Dispatched => Progress::Dispatched,
            Until::Closed => Progress::Closed,
        }
    }
}

/// Runs `chowki press`.
pub fn run(args: &Args) -> ExitCode {
    let Some(config) = args.config.clone().or_else(demo::running_config) else {
        eprintln!(
            "chowki press: no demo is running; start `chowki demo` in another terminal, or name a config with --config"
        );
        return ExitCode::from(exit::NO_INPUT);
    };
    let target = match target(&config, &args.button) {
        Ok(target) => target,
        Err(code) => return code,
    };
    let Ok(runtime) = super::runtime() else { return ExitCode::from(exit::FAILED) };
    match runtime.block_on(follow(args, target)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("chowki press: {why}");
            ExitCode::from(exit::FAILED)
        }
    }
}

struct Target {
    button: ButtonId,
    password: String,
    host: String,
    port: u16,
}

fn target(config: &Path, button: &str) -> Result<Target, ExitCode> {
    let loaded = config::load(config, Ports::Leave).map_err(|faults| {
        check::show(&faults);
        check::exit_of(&faults)
    })?;
    let refuse = |why: String| {
        eprintln!("chowki press: {why}");
        ExitCode::from(exit::NO_INPUT)
    };
    let known = loaded.inventory.buttons();
    let found = known.iter().find(|b| b.id.as_str() == button).ok_or_else(|| {
        let ids: Vec<_> = known.iter().take(8).map(|b| b.id.as_str()).collect();
        refuse(format!("no button {button} in {}; there are {} ...", config.display(), ids.join(", ")))
    })?;
    let ButtonCredential::Password(password) = &found.credential else {
        return Err(refuse(format!("{button} proves itself by certificate; press it at its device")));
    };
    let Some(listen) = loaded.config.broker.listen else {
        return Err(refuse("this gateway takes buttons by TLS only; press it at its device".into()));
    };
    let host = if listen.ip().is_unspecified() { "127.0.0.1".into() } else { listen.ip().to_string() };
    Ok(Target { button: found.id.clone(), password: password.reveal().to_owned(), host, port: listen.port() })
}

async fn follow(args: &Args, target: Target) -> Result<(), String> {
    let mut options = MqttOptions::new(target.button.as_str(), &target.host, target.port);
    options.set_credentials(target.button.as_str(), &target.password).set_keep_alive(Duration::from_secs(10));
    let (client, mut link) = AsyncClient::new(options, 16);
    let state_topic = format!("buttons/{}/state", target.button);
    let press_topic = format!("buttons/{}/press", target.button);
    let press = press_id();
    let kind = format!("{:?}", args.kind).to_lowercase();
    let payload = serde_json::json!({ "press": press, "at": clock::wall(), "kind": kind }).to_string();
    let say = Say { json: args.json, colour: std::io::stdout().is_terminal(), began: clock::mono() };
    let limit = Duration::from_secs(args.timeout);
    let following = async {
        let text = |e: rumqttc::ClientError| e.to_string();
        client.subscribe(&state_topic, QoS::AtLeastOnce).await.map_err(text)?;
        loop {
            match link.poll().await.map_err(|e| super::chain(&e))? {
                Event::Incoming(Packet::SubAck(_)) => {
                    say.step("pressed", &press);
                    client.publish(&press_topic, QoS::AtLeastOnce, false, payload.clone()).await.map_err(text)?;
                }
                Event::Incoming(Packet::PubAck(_)) => say.step("acknowledged", "the gateway has it on disk"),
                Event::Incoming(Packet::Publish(p)) => {
                    let Ok(state) = serde_json::from_slice::<StateMessage>(&p.payload) else { continue };
                    if state.press.as_ref().is_none_or(|p| p.as_str() != press) {
                        continue;
                    }
                    let word = serde_json::to_value(state.state).unwrap_or_default();
                    say.step(word.as_str().unwrap_or_default(), &format!("incident {}", state.incident));
                    if state.state >= args.until.progress() {
                        let _ = client.disconnect().await;
                        return Ok::<(), String>(());
                    }
                }
                _ => {}
            }
        }
    };
    match tokio::time::timeout(limit, following).await {
        Ok(result) => result.map_err(|e| format!("{}:{}: {e}", target.host, target.port)),
        Err(_) => Err(format!(
            "not {:?} within {} s; the press stays recorded where that was told. Is headquarters reachable?",
            args.until, args.timeout
        )),
    }
}

/// An id that no other press has.
fn press_id() -> String {
    let mut random = [0u8; 8];
    // Without randomness the time still tells presses apart.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
    format!("cli-{}-{hex}", clock::wall().unix_ms())
}

struct Say {
    json: bool,
    colour: bool,
    began: crate::district::clock::Mono,
}

impl Say {
    fn step(&self, step: &str, detail: &str) {
        let ms = clock::mono().since(self.began).as_secs_f64() * 1e3;
        if self.json {
            println!("{}", serde_json::json!({ "step": step, "detail": detail, "ms": (ms * 1e3).round() / 1e3 }));
        } else if self.colour {
            println!("\x1b[2m{ms:>9.1} ms\x1b[0m  \x1b[1;32m{step:<13}\x1b[0m {detail}");
        } else {
            println!("{ms:>9.1} ms  {step:<13} {detail}");
        }
    }
}
