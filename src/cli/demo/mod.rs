//! `chowki demo`: a whole district on this machine. Cameras that serve films over real RTSP, buttons that connect over
//! real MQTT, a headquarters of a broker and a directory behind a plug that can be pulled, and between them the gateway
//! as it runs everywhere else, from a config file as an installer writes it.

pub mod clip;
mod controls;
mod devices;
mod district;
mod headquarters;
mod place;
mod plug;
pub mod rtsp;
mod view;

use std::{process::ExitCode, sync::Arc, time::Duration};

use super::{check, exit, logging, output, run};
use crate::{
    config::{self, Ports},
    district::{inventory::Login, secret::Secret},
    gateway::Facade,
    host::scope::Scope,
};

use self::{devices::Devices, district::District, headquarters::Hq, place::Place, plug::Plug, rtsp::DemoCameras};

pub use place::running_config;

/// The page's port when none is named.
const USUAL_PORT: u16 = 8480;

/// Show a whole district on this machine: buttons, cameras, gateway, headquarters.
///
/// Everything is real but the street: the buttons speak MQTT, the cameras RTSP, headquarters is a broker and a directory.
/// All of it is on loopback and in a temporary directory, and gone when it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki demo
  chowki demo --press saddar-01 --for 60      press once by itself, end after a minute
  chowki press saddar-01                      from another terminal

Keys: 1-6 press a button, t test press, s seen, d dispatched, c close, u pull the backhaul's plug, x fail a camera, q quit.")]
pub struct Args {
    /// Port of the page on 127.0.0.1; 0 for any free one. Left out: 8480, or any free one when that is taken.
    #[arg(long)]
    pub port: Option<u16>,
    /// Press this button once everything runs.
    #[arg(long, value_name = "BUTTON")]
    pub press: Option<String>,
    /// End by itself after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Keep the directory afterwards: config, headquarters' evidence, logs.
    #[arg(long)]
    pub keep: bool,
}

/// Runs `chowki demo`.
pub fn run(args: &Args) -> ExitCode {
    // Before anything is made that would have to be cleared away.
    if let Err(why) = page_port(args.port) {
        eprintln!("chowki demo: {why}");
        return ExitCode::from(exit::FAILED);
    }
    let place = match Place::take() {
        Ok(place) => place,
        Err(e) => {
            eprintln!("chowki demo: no temporary directory for it: {e}");
            return ExitCode::from(exit::CANNOT_CREATE);
        }
    };
    logging::start(std::fs::File::create(place.log()).ok());
    let Ok(runtime) = super::runtime() else { return ExitCode::from(exit::FAILED) };
    let result = runtime.block_on(show(args, &place));
    let dir = place.leave(args.keep || result.is_err());
    match result {
        Ok(()) => {
            if args.keep {
                return output::print(&format!("kept: {}\n", dir.display())).err().unwrap_or(ExitCode::SUCCESS);
            }
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("chowki demo: {e}\nwhat happened is in {}", dir.display());
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Everything that the keys and the page can act on.
#[derive(Clone)]
struct Demo {
    facade: Facade,
    devices: Devices,
    cameras: DemoCameras,
    plug: Plug,
    hq: Hq,
}

async fn show(args: &Args, place: &Place) -> Result<(), String> {
    let scope = Scope::new("demo");
    let district = District::new();
    let text = |e: &dyn std::error::Error| super::chain(e);
    let login = Login { username: district::CAMERA_USER.into(), password: Secret::new(district::CAMERA_PASSWORD) };
    let cameras = rtsp::serve(district.streams(), login, &scope).await.map_err(|e| text(&e))?;
    let broker = headquarters::broker()?;
    let plug = Plug::new(broker, place.objects(), &scope).await.map_err(|e| text(&e))?;
    let page = page_port(args.port)?;
    let written = district::Written { cameras: &cameras, plug: &plug, page, place };
    district.write(&written).map_err(|e| text(&e))?;
    let loaded = config::load(&place.config(), Ports::Leave).map_err(|faults| {
        check::show(&faults);
        "the demo's own config has faults".to_owned()
    })?;

    let slot = Arc::new(std::sync::OnceLock::new());
    let (lines, spoken) = tokio::sync::mpsc::channel(view::LINES);
    let hq = Hq::connect(broker, lines.clone(), &scope);
    let gateway_scope = scope.child("gateway");
    let running = run::start(loaded, &gateway_scope, true, controls::routes(slot.clone())).await?;
    let facade = running.gateway.facade();
    let (Some(listen), _) = facade.broker_addresses() else { return Err("no listener for buttons".into()) };
    let devices = Devices::connect(listen, &district, lines.clone(), &scope);
    let demo = Demo { facade, devices, cameras, plug, hq };
    let _ = slot.set(demo.clone());
    place.announce().map_err(|e| text(&e))?;

    let ending = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let screens = district.buttons.iter().filter(|b| b.screen.is_some()).count();
    let pressing = press_once(&demo, screens, args.press.clone());
    tokio::select! {
        () = view::show(&demo, &district, &running, place, spoken) => {}
        () = super::asked_to_stop() => {}
        () = ending => {}
        never = pressing => match never {}
    }
    view::farewell();
    running.stop(gateway_scope).await;
    scope.shutdown(Duration::from_secs(3)).await;
    Ok(())
}

/// Presses one button when its device is connected and the cameras are live, then never returns. A screen's camera is live once
/// somebody opens its page.
async fn press_once(demo: &Demo, screens: usize, button: Option<String>) -> std::convert::Infallible {
    if let Some(button) = button {
        for _ in 0..100 {
            let ready =
                demo.facade.board().status_now().is_some_and(|s| s.cameras.bad <= screens && s.buttons.good > 0);
            if ready {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Long enough that the rings hold the whole time before the press.
        tokio::time::sleep(Duration::from_secs(11)).await;
        demo.devices.press(&button, "panic");
    }
    std::future::pending().await
}

/// The port asked for; otherwise the usual one, or any free one when that is taken.
fn page_port(wanted: Option<u16>) -> Result<u16, String> {
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|l| l.local_addr());
    let found = match wanted {
        Some(port) => free(port).map_err(|e| {
            format!("the page cannot have port {port} of 127.0.0.1: {e}; name another one, or leave --port out")
        }),
        None => free(USUAL_PORT).or_else(|_| free(0)).map_err(|e| format!("no free port on 127.0.0.1: {e}")),
    };
    found.map(|address| address.port())
}
